"""Timing several ways of one computation side by side: interleaved, warmed up, medians with quartiles."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def time_side_by_side(
    ways: Mapping[str, Callable[[], Any]], *, repeats: int, warmup: int = 2
) -> dict[str, dict[str, Any]]:
    """Run all ways in turn, again and again.

    Args:
        ways: Name to a function without arguments.
        repeats: Counted rounds.
        warmup: Rounds before them.

    Returns:
        For each way: every time, the median and the quartiles, in milliseconds.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warmup + repeats):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            elapsed = 1e3 * (time.perf_counter() - start)
            if turn >= warmup:
                times[name].append(elapsed)
    return {name: _summarised(values) for name, values in times.items()}


def _summarised(values: list[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"ms": values, "median": middle, "quartiles": [low, high]}
