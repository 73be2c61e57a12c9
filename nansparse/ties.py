"""Finding unstable pooling windows fast: equation 3 of `nansparse.functional.pooling`, cell by cell.

The cells of all windows come as one tensor a kernel position (views of the dense tensor, or gathered rows),
so that every step is an elementwise pass. Missing, NaN and padded cells hold -inf, which never ties with a
finite maximum.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.functional.pooling import TIE_ATOL
from nansparse.windows import Windows

# A window's tied cells are kept as the bits of one byte.
CELLS_IN_A_CODE = 8
# Cells of one kernel position worked on at a time.
CELLS_PER_SLAB = 1 << 18


@dataclass(frozen=True)
class TilePeaks:
    """Windows that tile the grid: M of them, C channels, as rows.

    Attributes:
        values: (M, C), the maximum over the real cells; -inf where there is none.
        codes: uint8 (M, C), bit k set where cell k ties in an unstable window.
        unstable: uint8 (M, C), 1 in an unstable window.
        winner: uint8 (M, C), the bit of the first cell that holds the maximum; 1 where no cell is real.
        count: How many windows are unstable, over the channels; None where nobody counted.
    """

    values: Tensor
    codes: Tensor
    unstable: Tensor
    winner: Tensor
    count: int | None = None


@dataclass(frozen=True)
class Peaks:
    """The maximum of each window, and whether another cell comes close anywhere.

    Attributes:
        best: Maximum over the cells.
        epsilon: Relative tolerance of a tie.
        some_tie: Whether any window has a second cell that ties.
    """

    best: Tensor
    epsilon: float
    some_tie: bool


def tiles_the_grid(windows: Windows, most_cells: int) -> bool:
    """Say whether windows tile the grid, so that a cell belongs to one window at most.

    Args:
        windows: The geometry.
        most_cells: Cells a window may have.

    Returns:
        True for stride = kernel, without padding, dilation or windows that reach past the grid.
    """
    inside = all(o * k <= g for o, k, g in zip(windows.out_grid, windows.kernel, windows.grid, strict=True))
    ones = all(d == 1 or k == 1 for d, k in zip(windows.dilation, windows.kernel, strict=True))
    return (
        windows.kernel == windows.stride
        and not any(windows.padding)
        and inside
        and ones
        and windows.volume <= most_cells
    )


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
    if len(cells) == 1 or not cells[0].numel():
        return Peaks(cells[0], epsilon, some_tie=False)
    best = torch.empty(cells[0].shape, dtype=cells[0].dtype, device=cells[0].device)
    some_tie = False
    for slab in _slabs(best):
        first, *others = (cell[slab] for cell in cells)
        highest = best[slab]
        second = torch.minimum(first, others[0])
        torch.maximum(first, others[0], out=highest)
        for cell in others[1:]:
            torch.maximum(second, torch.minimum(highest, cell), out=second)
            torch.maximum(highest, cell, out=highest)
        # Comparing in place, float to float, is vectorised; comparing into a bool tensor is not.
        some_tie = some_tie or bool((highest - second).le_(_tolerance(highest, epsilon)).amax() > 0)
    return Peaks(best, epsilon, some_tie)


def tile_peaks(cells: list[Tensor], peaks: Peaks, max_ties: int) -> TilePeaks:
    """Say which cells tie in the unstable windows.

    Args:
        cells: One tensor a kernel position, at most `CELLS_IN_A_CODE`.
        peaks: Their peaks; finite, or -inf where no cell is real.
        max_ties: A window is unstable when more cells tie.

    Returns:
        Everything about the windows.
    """
    codes = torch.empty(peaks.best.shape, dtype=torch.uint8, device=peaks.best.device)
    unstable, winner = torch.empty_like(codes), torch.empty_like(codes)
    for slab in _slabs(codes):
        best = peaks.best[slab]
        tolerance = _tolerance(best, peaks.epsilon)
        # One float per window collects all: tied cells in bits 0-7, cells equal to the maximum in bits 8-15,
        # the number of tied cells above. Floats up to 2^24 are exact; adding them beats any work on bools.
        total = torch.zeros(best.shape, dtype=torch.float32, device=best.device)
        for k, cell in enumerate(cells):
            # The arithmetic of torch.isclose; the order of the operands does not matter to the last bit.
            total.add_((best - cell[slab]).le_(tolerance), alpha=float((1 << k) + (1 << 16)))
            total.add_((best - cell[slab]).eq_(0), alpha=float(1 << (k + 8)))
        bits = total.to(torch.int32)
        equal = (bits >> 8).to(torch.uint8)
        # count > max_ties, by way of the highest bit.
        count = (bits >> 16).to(torch.uint8)
        unstable[slab] = (count + (127 - min(max_ties, CELLS_IN_A_CODE))) >> 7
        codes[slab] = bits.to(torch.uint8).mul_(unstable[slab])
        first = equal & -equal
        winner[slab] = first + (first == 0)
    channels = codes.shape[-1]
    values, codes, unstable, winner = (t.reshape(-1, channels) for t in (peaks.best, codes, unstable, winner))
    return TilePeaks(values, codes, unstable, winner)


def _tolerance(best: Tensor, epsilon: float) -> Tensor:
    return (best * epsilon).abs_().add_(TIE_ATOL)


def _slabs(x: Tensor) -> Iterator[tuple[int | slice, ...]]:
    """Cut (N, rows, ..., C), or rows (P, C), into pieces whose temporaries stay in cache."""
    lead = 0 if x.dim() == 2 else 1
    per_row = max(math.prod(x.shape[lead + 1 :]), 1)
    step = max(1, CELLS_PER_SLAB // per_row)
    pieces = [slice(start, start + step) for start in range(0, x.shape[lead], step)]
    if lead == 0:
        yield from ((piece,) for piece in pieces)
    else:
        yield from ((sample, piece) for sample in range(len(x)) for piece in pieces)
