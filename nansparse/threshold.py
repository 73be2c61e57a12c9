"""The rule that says which windows are skipped: the share of NaN cells reaches the threshold."""

import math

from torch import Tensor


def is_skipped(nan_cells: Tensor, window_cells: Tensor, threshold: float) -> Tensor:
    """Say which windows are skipped.

    The share is divided out in float64, where a correctly rounded quotient equals the literal that a user
    writes, so that a window exactly at the threshold is skipped. A window without cells (a transposed
    convolution with stride > kernel) reads nothing and is never skipped.

    Args:
        nan_cells: Number of NaN cells a window.
        window_cells: Number of cells a window, padding included; broadcastable.
        threshold: Share in (0, 1].

    Returns:
        Bool tensor, True where the window is skipped.
    """
    return (nan_cells.double() / window_cells.double() >= threshold) & (window_cells > 0)


def fewest_skipped(size: int, threshold: float) -> int:
    """Find the smallest NaN count whose share reaches the threshold, by the same division as `is_skipped`.

    Args:
        size: Cells a window.
        threshold: Share in (0, 1].

    Returns:
        The count; windows with fewer NaN cells are kept.
    """
    count = max(math.ceil(threshold * size) - 1, 1)
    while count / size < threshold:
        count += 1
    return count
