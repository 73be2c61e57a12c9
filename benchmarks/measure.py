"""Timing in milliseconds, by the routine of `nansparse bench`: interleaved, warmed up, every sample kept."""

from collections.abc import Callable, Mapping
from typing import Any

from nansparse.evaluation.timing import time_interleaved


def time_side_by_side(
    ways: Mapping[str, Callable[[], Any]], *, repeats: int, warmup: int = 2
) -> dict[str, dict[str, Any]]:
    """Run all ways in turn, again and again.

    Args:
        ways: Name to a function without arguments.
        repeats: Samples of each way.
        warmup: Calls of each way before them.

    Returns:
        For each way: every time, the median and the quartiles, in milliseconds.
    """
    times = time_interleaved(ways, repeats=repeats, warmup=warmup)
    return {
        name: {
            "ms": [1e3 * seconds for seconds in timing.seconds],
            "median": 1e3 * timing.median,
            "quartiles": [1e3 * quartile for quartile in timing.quartiles],
        }
        for name, timing in times.items()
    }
