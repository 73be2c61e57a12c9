"""Timing several ways of one computation side by side.

Every way is warmed up, then all run in turn, again and again, in a balanced order: a slow second of the
machine falls on all of them, and none always finds the caches as the same neighbour left them. The first
calls are never counted.
What is too short for the clock is called several times a sample. Nothing is averaged away: every sample is
kept, and medians and quartiles are computed from them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nansparse.errors import InputError

# A sample of a short computation lasts at least this long, far above the clock's resolution.
SHORTEST_SAMPLE = 1e-3


@dataclass(frozen=True)
class Timing:
    """The samples of one way.

    Attributes:
        seconds: Wall-clock seconds of one call, a sample each, in the order taken.
        calls: Calls that each sample was divided by.
    """

    seconds: tuple[float, ...]
    calls: int = 1

    @property
    def median(self) -> float:
        """The middle sample, in seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile, in seconds; a single sample is both."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON-able data.

        Returns:
            Every sample, the calls a sample, the median and the quartiles.
        """
        return {
            "seconds": list(self.seconds),
            "calls": self.calls,
            "median": self.median,
            "quartiles": list(self.quartiles),
        }


def time_interleaved(
    ways: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    warmup: int = 2,
    shortest: float = SHORTEST_SAMPLE,
    patience: float = math.inf,
    device: torch.device | None = None,
) -> dict[str, Timing]:
    """Run all ways in turn, again and again, in a balanced order.

    Args:
        ways: Name to a function without arguments.
        repeats: Samples of each way.
        warmup: Calls of each way before the first sample; at least one.
        shortest: Seconds that a sample must last; shorter computations are called several times.
        patience: A way that takes more than so many times as long as the fastest is called once after its
            warm-up, and that is its one sample.
        device: What the ways compute on; a GPU is waited for. The CPU when None.

    Returns:
        The samples by way.

    Raises:
        InputError: If repeats or warmup are below 1.
    """
    if repeats < 1 or warmup < 1:
        raise InputError(f"repeats and warm-up must be at least 1, got {repeats} and {warmup}")
    first = {name: [clocked(run, 1, device) for _ in range(warmup + 1)][-1] for name, run in ways.items()}
    limit = patience * max(min(first.values(), default=0.0), 1e-9)
    names: Sequence[str] = [name for name in ways if first[name] <= limit]
    samples = {name: [] if name in names else [first[name]] for name in ways}
    calls = {name: max(1, math.ceil(shortest / max(first[name], 1e-9))) for name in names}
    for turn in range(repeats):
        for i in balanced_order(len(names), turn):
            name = names[i]
            samples[name].append(clocked(ways[name], calls[name], device))
    return {name: Timing(tuple(values), calls.get(name, 1)) for name, values in samples.items()}


def balanced_order(count: int, turn: int) -> list[int]:
    """Order ways so that over the turns each of them follows each other one equally often.

    These are the rows of a Williams square (E. J. Williams, "Experimental designs balanced for the estimation
    of residual effects of treatments", 1949): it takes as many turns as there are ways to be balanced, twice
    as many if their number is odd.

    Args:
        count: How many there are.
        turn: Number of the turn, from 0.

    Returns:
        Their numbers, in the order of that turn.
    """
    ahead = [(i + 1) // 2 if i % 2 else -(i // 2) for i in range(count)]
    order = [(step + turn) % count for step in ahead]
    return order[::-1] if count % 2 and turn // count % 2 else order


def clocked(run: Callable[[], Any], calls: int = 1, device: torch.device | None = None) -> float:
    """Time some calls of a function.

    Args:
        run: The function.
        calls: How often it is called.
        device: Waited for before the clock starts and before it stops, if it is a GPU.

    Returns:
        Seconds a call.
    """
    _wait_for(device)
    start = time.perf_counter()
    for _ in range(calls):
        run()
    _wait_for(device)
    return (time.perf_counter() - start) / calls


def _wait_for(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
