"""Maxima and ties of windows that tile the grid, by a compiled loop over rows."""

import numpy as np
import torch
from torch import Tensor

from nansparse.compiled.availability import Kernels
from nansparse.functional.pooling import TIE_ATOL
from nansparse.policy import Policy
from nansparse.pool import empty_rows
from nansparse.ties import TilePeaks


def may_tie(kernels: Kernels, values: Tensor, table: Tensor, epsilon: float) -> bool:
    """Say whether two cells of any window tie, or a cell is no finite number.

    Args:
        kernels: The loops.
        values: (P, C).
        table: int32 (M, K), rows read; P and more stand for none.
        epsilon: Relative tolerance of a tie.

    Returns:
        False where torch's own pooling says all there is to say.
    """
    found = torch.zeros(2, dtype=torch.int64)
    kernels.run(
        kernels.pooling.find_tie, values, table, np.float32(epsilon), np.float32(TIE_ATOL), into=(found,)
    )
    return bool(found.any())


def peaks_of_rows(
    kernels: Kernels, values: Tensor, place: Tensor, table: Tensor, policy: Policy
) -> tuple[TilePeaks, bool, bool, bool]:
    """Do what `nansparse.ties` does, in one pass over rows.

    Args:
        kernels: The loops.
        values: (R, C), NaN where a cell is.
        place: int64 (P,), the row in `values` of each row; empty if they are the same.
        table: int32 (M, K), rows read, K at most 8; P and more stand for none.
        policy: Says when a window is unstable.

    Returns:
        The peaks; whether a window is unstable, whether one reads NaN, whether one reads infinity.
    """
    shape = (len(table), values.shape[1])
    best = empty_rows(values, *shape)
    codes, unstable, winner = (torch.empty(shape, dtype=torch.uint8) for _ in range(3))
    ties, odd = kernels.run(
        kernels.pooling.pool_cells,
        *(values, place, table, np.float32(policy.epsilon), np.float32(TIE_ATOL), policy.max_ties),
        into=(best, codes, unstable, winner),
    )
    return TilePeaks(best, codes, unstable, winner, int(ties)), ties > 0, odd & 1 > 0, odd & 2 > 0
