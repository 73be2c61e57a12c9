"""Confidence intervals of shares: Wilson for one, Newcombe for the difference of two paired ones."""

from __future__ import annotations

import math

from torch import Tensor

from nansparse.errors import InputError

# Two-sided 95 % of the normal distribution.
Z = 1.959964


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Give the 95 % confidence interval of a share (Wilson 1927).

    Args:
        hits: How many were right.
        count: How many there were, 1 or more.

    Returns:
        Its ends.

    Raises:
        InputError: If the counts make no share.
    """
    if count < 1 or not 0 <= hits <= count:
        raise InputError(f"expected 0 <= hits <= count with count >= 1, got {hits} of {count}")
    share, square = hits / count, Z * Z
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = Z / (1 + square / count) * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    return middle - half, middle + half


def paired_interval(first: Tensor, second: Tensor) -> tuple[float, float]:
    """Give the 95 % confidence interval of the difference of two shares counted on the same cases.

    Args:
        first: Bool (N,), whether the first way was right.
        second: Bool (N,), whether the second was.

    Returns:
        Ends of the interval of share(first) - share(second): both Wilson intervals joined, their correlation
        taken off (Newcombe 1998, Statistics in Medicine 17, method 10).
    """
    count = len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    p1, p2 = (both + only_first) / count, (both + only_second) / count
    (l1, u1), (l2, u2) = (wilson_interval(round(p * count), count) for p in (p1, p2))
    spread = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    cross = float(both * neither - only_first * only_second)
    if cross > 0:
        cross = max(0.0, cross - count / 2)
    phi = cross / math.sqrt(spread) if spread else 0.0
    d1, d2 = p1 - l1, u2 - p2
    e1, e2 = u1 - p1, p2 - l2
    low = math.sqrt(max(0.0, d1 * d1 - 2 * phi * d1 * d2 + d2 * d2))
    high = math.sqrt(max(0.0, e1 * e1 - 2 * phi * e1 * e2 + e2 * e2))
    return p1 - p2 - low, p1 - p2 + high
