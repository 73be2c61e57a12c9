"""Which rows hold NaN, found without a look at every cell apart."""

import torch
from torch import Tensor

from nansparse.compiled import kernels_for


def rows_with_nan(rows: Tensor) -> Tensor:
    """Find the rows that hold NaN, or infinities that add up to it.

    Args:
        rows: (P, C).

    Returns:
        Row numbers, int64, sorted.
    """
    # One cheap pass finds the few rows that are worth a closer look.
    return rows.sum(1).isnan().nonzero().flatten()


def rows_with_numbers(rows: Tensor) -> tuple[Tensor | None, bool]:
    """Say which rows hold a number.

    Args:
        rows: (P, C).

    Returns:
        Bool (P,), or None if no row holds NaN; and whether any row holds both.
    """
    kernels = kernels_for(rows)
    if kernels is not None:
        sums, nans = rows.new_empty(len(rows)), torch.empty(len(rows), dtype=torch.int32)
        in_order = torch.empty(0, dtype=torch.int64)
        kernels.run(kernels.cells.sum_rows, rows, in_order, into=(sums, nans))
        if not bool(nans.any()):
            return None, False
        keep = nans < rows.shape[1]
        return keep, bool((nans.bool() & keep).any())
    suspects = rows_with_nan(rows)
    if not len(suspects):
        return None, False
    nan = rows.index_select(0, suspects).isnan()
    missing = nan.all(1)
    keep = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    keep[suspects] = ~missing
    return keep, bool((nan.any(1) & ~missing).any())
