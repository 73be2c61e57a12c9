"""Mean and spread of rows, over the real cells or with a number in place of NaN."""

import torch
from torch import Tensor

from nansparse.compiled import kernels_for

# Rows worked on at a time, so that what is in between stays in cache.
PIECE = 4096


def part_statistics(
    rows: Tensor, cells: int, groups: int, partial: bool, nan: float | str, eps: float
) -> tuple[Tensor, Tensor]:
    """Take the statistics of rows that share them.

    Args:
        rows: (P, C), at least float32.
        cells: Sites that share them, missing ones included.
        groups: Number of channel groups.
        partial: Whether rows may hold NaN.
        nan: "ignore" to take the statistics over the real values, or what every NaN cell counts as.
        eps: Added to the variance.

    Returns:
        The mean and one over the standard deviation, each (C,).
    """
    width = rows.shape[1] // groups
    total, count = (line.view(groups, width).sum(1) for line in _sums(rows, None, partial))
    empty, level = torch.zeros_like(count), 0.0
    if not isinstance(nan, str):
        empty, level = cells * width - count, nan
    every = (count + empty).clamp(min=1)
    mean = (total + empty * level) / every
    spread = mean.to(rows.dtype).repeat_interleave(width)
    squares = _sums(rows, spread, partial)[0].view(groups, width).sum(1)
    variance = (squares + empty * (level - mean).square()) / every
    return spread, (variance + eps).rsqrt().to(rows.dtype).repeat_interleave(width)


def _sums(rows: Tensor, level: Tensor | None, partial: bool) -> tuple[Tensor, Tensor]:
    """Sum the real cells of each channel, or the squares of their distances from a level, and count them.

    Args:
        rows: (P, C).
        level: (C,); None to sum the cells themselves.
        partial: Whether rows may hold NaN.

    Returns:
        Two tensors (C,).
    """
    channels, kernels = rows.shape[1], kernels_for(rows)
    if kernels is not None:
        pieces = -(-max(len(rows), 1) // PIECE)
        sums = torch.empty(pieces, channels, dtype=torch.float64)
        counts = torch.empty(pieces, channels, dtype=torch.int64)
        line = rows.new_zeros(channels) if level is None else level
        kernels.run(kernels.cells.sum_channels, rows, line, level is not None, into=(sums, counts))
        return sums.sum(0), counts.sum(0).double()
    total, count = rows.new_zeros(channels), rows.new_full((channels,), len(rows))
    count = count.zero_() if partial else count
    for piece in rows.split(PIECE):
        real = piece if level is None else (piece - level).square_()
        if partial:
            count += (piece == piece).sum(0)
            real = real.nan_to_num(0.0, torch.inf, -torch.inf)
        total += real.sum(0)
    return total, count
