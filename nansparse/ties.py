"""Finding unstable pooling windows fast: equation 3 of `nansparse.functional.pooling`, cell by cell.

The cells of all windows come as one tensor a kernel position (views of the dense tensor, or gathered rows),
so that every step is an elementwise pass. Missing, NaN and padded cells hold -inf, which never ties with a
finite maximum.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.functional.pooling import TIE_ATOL
from nansparse.windows import Windows

# A window's tied cells are kept as the bits of one byte.
CELLS_IN_A_CODE = 8


@dataclass(frozen=True)
class Peaks:
    """The maximum of each window, and whether another cell comes close anywhere.

    Attributes:
        best: Maximum over the cells.
        tolerance: How far below it a cell ties.
        some_tie: Whether any window has a second cell that ties.
    """

    best: Tensor
    tolerance: Tensor
    some_tie: bool


def window_cells(x: Tensor, windows: Windows) -> list[Tensor]:
    """View a dense tensor one kernel position at a time.

    Args:
        x: (N, *spatial, C) in any memory order, or (N, C, *spatial) moved so.
        windows: Pooling windows, possibly padded or partly outside.

    Returns:
        One (N, *out_grid, C) view a kernel position, row-major; -inf outside the grid.
    """
    rank = len(windows.grid)
    low, high = windows.padding, [windows.high_padding(axis) for axis in range(rank)]
    if any(low) or any(h > 0 for h in high):
        sides = [side for axis in reversed(range(rank)) for side in (low[axis], max(high[axis], 0))]
        x = F.pad(x, [0, 0, *sides], value=-torch.inf)
    cells = [x]
    for axis in range(rank):
        step, apart = windows.stride[axis], windows.dilation[axis]
        span = (windows.out_grid[axis] - 1) * step + 1
        every = (slice(None),) * (axis + 1) + (slice(None, None, step),)
        starts = range(0, windows.kernel[axis] * apart, apart)
        cells = [cell.narrow(axis + 1, start, span)[every] for cell in cells for start in starts]
    return cells


def find_peaks(cells: list[Tensor], epsilon: float) -> Peaks:
    """Find each window's maximum, and whether its runner-up ties with it anywhere.

    Args:
        cells: One tensor a kernel position, equal shapes.
        epsilon: Relative tolerance.

    Returns:
        The peaks.
    """
    best = cells[0]
    second: Tensor | None = None
    for cell in cells[1:]:
        lower = torch.minimum(best, cell)
        second = lower if second is None else torch.maximum(second, lower, out=lower)
        best = torch.maximum(best, cell)
    tolerance = (best * epsilon).abs_().add_(TIE_ATOL)
    some_tie = False
    if second is not None and best.numel():
        # Comparing in place, float to float, is vectorised; comparing into a bool tensor is not.
        some_tie = bool((best - second).le_(tolerance).amax() > 0)
    return Peaks(best, tolerance, some_tie)


def tie_codes(cells: list[Tensor], peaks: Peaks, max_ties: int) -> tuple[Tensor, Tensor, Tensor]:
    """Say which cells tie in the unstable windows.

    Args:
        cells: One tensor a kernel position, at most `CELLS_IN_A_CODE`.
        peaks: Their peaks; finite, or -inf where no cell is real.
        max_ties: A window is unstable when more cells tie.

    Returns:
        uint8 codes (bit k set where cell k ties in an unstable window), uint8 unstable (0 or 1), and uint8
        winner (the bit of the first cell that holds the maximum; bit 0 where no cell is real).
    """
    best = peaks.best
    # One float per window collects all: tied cells in bits 0-7, cells equal to the maximum in bits 8-15, the
    # number of tied cells above. Floats up to 2^24 are exact, and adding them is faster than any work on
    # bools.
    total = torch.zeros(best.shape, dtype=torch.float32, device=best.device)
    for k, cell in enumerate(cells):
        # The same arithmetic as torch.isclose; the order of the operands does not matter to the last bit.
        total.add_((best - cell).le_(peaks.tolerance), alpha=float((1 << k) + (1 << 16)))
        total.add_((best - cell).eq_(0), alpha=float(1 << (k + 8)))
    bits = total.to(torch.int32)
    codes, equal, count = (bits >> shift for shift in (0, 8, 16))
    codes, equal, count = codes.to(torch.uint8), equal.to(torch.uint8), count.to(torch.uint8)
    # count > max_ties, by way of the highest bit.
    unstable = (count + (127 - min(max_ties, CELLS_IN_A_CODE))) >> 7
    codes *= unstable
    winner = equal & -equal
    return codes, unstable, winner + (winner == 0)
