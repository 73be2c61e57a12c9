"""One way of running networks over one volume: its own copies, its own view of the volume, its own clock."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nansparse.background import mask_background
from nansparse.comparison.collecting import Collector
from nansparse.comparison.ways import WayPlan
from nansparse.errors import InputError
from nansparse.evaluation.timing import clocked
from nansparse.imaging.slices import PLANES
from nansparse.policy import Policy
from nansparse.prediction.networks import Network, padded_shape
from nansparse.prediction.pieces import Piece
from nansparse.prediction.recipe import Recipe
from nansparse.record import RunRecord
from nansparse.session import Session

Box = tuple[slice, slice, slice]


class UnsupportedWayError(InputError):
    """A way that cannot run what is asked for, and through nobody's fault."""


@dataclass
class RunningWay:
    """A way, ready to run on one volume.

    Attributes:
        plan: What it is.
        networks: Its own copies, enabled or compiled already.
        choices: What the networks see, with the number of the network; one list for each batch size to try,
            until `settle` has chosen the fastest.
        collector: Takes what they return.
        volume: The volume as this way sees it, float32 (X, Y, Z), NaN where background is marked.
        device: Where it computes.
        records: What nansparse does.
        turns: Seconds of each turn.
    """

    plan: WayPlan
    networks: list[Network]
    choices: list[list[tuple[int, Piece]]]
    collector: Collector
    volume: Tensor
    device: torch.device
    records: list[RunRecord] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)

    @property
    def pieces(self) -> list[tuple[int, Piece]]:
        """What the networks see, with the number of the network."""
        return self.choices[0]

    def run(self, number: int) -> None:
        """Run one piece.

        Args:
            number: Of the piece.
        """
        at, piece = self.pieces[number]
        kind = self.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.plan.bfloat16):
            x = piece.cut(self.volume)
            self.collector.add(piece, self.networks[at], x, self.device, self.plan.channels_last)

    def take_turn(self, numbers: range) -> None:
        """Run some pieces and note the time.

        Args:
            numbers: Of the pieces.
        """
        start = time.perf_counter()
        for number in numbers:
            self.run(number)
        self.turns.append(time.perf_counter() - start)

    def warm_up(self) -> None:
        """Run the middle piece, uncounted: compilers compile, caches fill."""
        self.run(len(self.pieces) // 2)

    def settle(self) -> None:
        """Choose the batch size that takes the least time a sample; every way gets its own best."""
        costs = []
        for pieces in self.choices:
            chosen = RunningWay(self.plan, self.networks, [pieces], self.collector, self.volume, self.device)
            chosen.warm_up()
            samples = len(pieces[len(pieces) // 2][1].places)
            costs.append(clocked(chosen.warm_up, device=self.device) / samples)
        self.choices = [self.choices[costs.index(min(costs))]]

    def clear(self) -> None:
        """Forget what was counted so far."""
        for record in self.records:
            record.clear()


@contextlib.contextmanager
def prepared_way(
    plan: WayPlan, networks: list[Network], volume: Tensor, recipe: Recipe, task: str, subset: int | None
) -> Iterator[RunningWay]:
    """Set a way up; policies stay enabled until the block is closed.

    Args:
        plan: The way.
        networks: Those of the recipe, not enabled.
        volume: The padded volume, float32 (X, Y, Z).
        recipe: Grid, windows, device.
        task: "segmentation", "regression" or "classification".
        subset: How many pieces to run, evenly spaced; all when None.

    Yields:
        The way, usable inside the block.
    """
    own = [_laid_out(network.copied(), plan.channels_last) for network in networks]
    box = _box(volume, own, recipe.empty, subset) if plan.cropped else None
    seen = volume if box is None else _padded(volume[box], networks, recipe)
    if plan.margin is not None:
        seen = mask_background(seen[None, None], value=recipe.empty, margin=plan.margin)[0, 0]
    sizes = dict.fromkeys((1, recipe.batch_size)) if subset is None else (1,)
    choices = [_pieces(own, tuple(seen.shape), replace(recipe, batch_size=size), subset) for size in sizes]
    if plan.compiled:
        own = [_compiled(network) for network in own]
    collector = Collector(
        task, recipe.activation, tuple(volume.shape), box, seen, single=_single(own, choices[0], subset)
    )
    way = RunningWay(plan, own, choices, collector, _in_order(seen, own), torch.device(recipe.device))
    with contextlib.ExitStack() as blocks:
        if plan.policy is not None:
            wanted = Policy(**{**plan.policy, "output_nan": "keep", "generator": _generator(plan, recipe)})
            for model in {id(network.model): network.model for network in own}.values():
                way.records.append(blocks.enter_context(Session(model, wanted)))
        yield way


def bounding_box(volume: Tensor, empty: float) -> Box:
    """Find the box of what is not background.

    Args:
        volume: (X, Y, Z).
        empty: Intensity of the background.

    Returns:
        A slice an axis.

    Raises:
        InputError: If everything is background.
    """
    found = (volume != empty).nonzero()
    if not len(found):
        raise InputError("the image is background everywhere: there is no bounding box")
    low, high = found.amin(0).tolist(), found.amax(0).tolist()
    x, y, z = (slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    return x, y, z


def _padded(inner: Tensor, networks: list[Network], recipe: Recipe) -> Tensor:
    padded = inner.new_full(padded_shape(tuple(inner.shape), networks, recipe), recipe.empty)
    padded[tuple(slice(size) for size in inner.shape)] = inner
    return padded


def _box(volume: Tensor, networks: list[Network], empty: float, subset: int | None) -> Box:
    """Find the bounding box; of a subset of slices, the same slices."""
    box = list(bounding_box(volume, empty))
    if subset is not None:
        if len(networks) != 1 or not networks[0].thickness:
            raise UnsupportedWayError(
                "a bounding box has other windows than the whole volume: no subset of them compares"
            )
        box[PLANES[networks[0].view.plane][0]] = slice(None)
    return box[0], box[1], box[2]


def _pieces(
    networks: list[Network], shape: tuple[int, ...], recipe: Recipe, subset: int | None
) -> list[tuple[int, Piece]]:
    """Cut a volume; of a subset, evenly spaced pieces, each in the middle of its share."""
    pieces = [(at, piece) for at, network in enumerate(networks) for piece in network.pieces(shape, recipe)]
    if subset is None:
        return pieces
    count = min(subset, len(pieces))
    return [pieces[int((i + 0.5) * len(pieces) / count)] for i in range(count)]


def _in_order(volume: Tensor, networks: list[Network]) -> Tensor:
    """Lay a volume out in the order of the slices, so that cutting one does not stride through all memory."""
    if len(networks) != 1 or not networks[0].thickness:
        return volume
    axes = PLANES[networks[0].view.plane]
    return volume.permute(axes).contiguous().permute(tuple(axes.index(axis) for axis in range(3)))


def _single(networks: list[Network], pieces: list[tuple[int, Piece]], subset: int | None) -> bool:
    """Say whether no two pieces overlap: one view of slices, or one window of the whole."""
    return len(networks) == 1 and (bool(networks[0].thickness) or (subset is None and len(pieces) == 1))


def _generator(plan: WayPlan, recipe: Recipe) -> torch.Generator | None:
    random = plan.policy is not None and plan.policy.get("nan_probability", 1.0) < 1.0
    return torch.Generator().manual_seed(recipe.seed) if random else None


def _laid_out(network: Network, channels_last: bool) -> Network:
    for parameter in network.model.parameters():
        if parameter.dim() in (4, 5):
            last = torch.channels_last if parameter.dim() == 4 else torch.channels_last_3d
            layout = last if channels_last else torch.contiguous_format
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network


def _compiled(network: Network) -> Network:
    model: nn.Module = torch.compile(network.model)  # type: ignore[assignment]  # typed as a callable
    return Network(model, network.view, network.thickness)
