"""Ways to run a segmentation network over the slices of a volume, timed side by side.

Every way gets the same slices in the same process, a few at a time in turn, so that a slow minute of the
machine falls on all of them. Each has a fixed batch size. Times are
wall-clock and hold everything from the slab of slices to the labels: layout changes, marking, conversions,
argmax.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import nansparse
from nansparse.evaluation.timing import balanced_order
from nansparse.policy import Policy
from nansparse.record import RunRecord

Predict = Callable[[Tensor], Tensor]


@dataclass
class Way:
    """One way to run the network.

    Attributes:
        name: What the table calls it.
        predict: Slabs (N, C, H, W) to labels uint8 (N, H, W).
        record: What nansparse did; None for a dense way.
        options: Those of `nansparse.enable`; None for a dense way.
        batch_size: Slices per call.
        seconds: Time of every turn.
        labels: Labels so far, in order.
    """

    name: str
    predict: Predict
    record: RunRecord | None = None
    options: dict[str, Any] | None = None
    batch_size: int = 1
    seconds: list[float] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    @property
    def total(self) -> float:
        """Seconds for all slices."""
        return sum(self.seconds)

    def volume(self) -> np.ndarray[Any, Any]:
        """Join the labels of all slices.

        Returns:
            uint8 (slices, H, W).
        """
        return torch.cat(self.labels).numpy()


def dense_way(name: str, model: nn.Module, *, channels_last: bool) -> Way:
    """Run the network as it is.

    Args:
        name: What the table calls it.
        model: The network.
        channels_last: Whether weights and input are laid out channels last.

    Returns:
        The way.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    # A copy: changing the layout of the weights must not reach the other ways.
    own = copy.deepcopy(model).to(memory_format=layout)  # type: ignore[call-overload]  # the stub lacks it

    def predict(x: Tensor) -> Tensor:
        return own(x.to(memory_format=layout)).argmax(1).to(torch.uint8)

    return Way(name, predict)


def cropped_way(
    name: str, inner: Way, box: tuple[slice, slice, slice], first_slice: Callable[[], int]
) -> Way:
    """Run another way on the bounding box of the volume only.

    Args:
        name: What the table calls it.
        inner: The way to run inside the box.
        box: Slices, rows and columns of the box; rows and columns fit the network.
        first_slice: Number of the first slice of the slabs at hand.

    Returns:
        The way; outside the box everything is background.
    """
    depth, rows, columns = box

    def predict(x: Tensor) -> Tensor:
        labels = torch.zeros(len(x), *x.shape[2:], dtype=torch.uint8)
        start = first_slice()
        inside = [i for i in range(len(x)) if depth.start <= start + i < depth.stop]
        if inside:
            chosen = slice(inside[0], inside[-1] + 1)
            labels[chosen, rows, columns] = inner.predict(x[chosen, :, rows, columns])
        return labels

    return Way(name, predict)


@contextlib.contextmanager
def sparse_way(
    name: str, model: nn.Module, policy: Policy, prepare: Callable[[Tensor], Tensor] | None = None
) -> Iterator[Way]:
    """Run the network under `nansparse.enable`.

    Args:
        name: What the table calls it.
        model: The network.
        policy: The options.
        prepare: Applied to the slabs first (marking background, say); its time counts.

    Yields:
        The way, usable inside the block.
    """
    # The stub of torch lacks the argument.
    own = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def predict(x: Tensor) -> Tensor:
        x = x.to(memory_format=torch.channels_last)
        return own(prepare(x) if prepare else x).argmax(1).to(torch.uint8)

    options: dict[str, Any] = {**policy.to_dict(), "generator": policy.generator}
    with nansparse.enable(own, **options) as record:
        yield Way(name, predict, record, policy.to_dict())


def warm_up(ways: Sequence[Way], slabs: Tensor) -> None:
    """Run every way once, uncounted.

    Args:
        ways: The ways.
        slabs: As many slabs as the largest batch size.
    """
    for way in ways:
        _run(way, slabs, way.batch_size)


def take_turn(ways: Sequence[Way], slabs: Tensor, turn: int) -> None:
    """Let every way label the same slabs, in an order that is balanced over the turns.

    Args:
        ways: The ways.
        slabs: (N, C, H, W).
        turn: Number of the turn.
    """
    for i in balanced_order(len(ways), turn):
        way = ways[i]
        start = time.perf_counter()
        labels = _run(way, slabs, way.batch_size)
        way.seconds.append(time.perf_counter() - start)
        way.labels.append(labels)


def _run(way: Way, slabs: Tensor, batch_size: int) -> Tensor:
    return torch.cat([way.predict(part) for part in slabs.split(batch_size)])
