"""NaN-aware max pooling of a sparse activation, on its rows: any window, padding and overlap.

Equation 3 of `nansparse.functional.pooling` over the cells that are there: a window plan lists the rows that
each window reads, and a finder gives the maximum of each window, its place, and which cells tie with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.fill import zeroed_rows
from nansparse.functional import nan_max_pool
from nansparse.functional.pooling import TIE_ATOL, Size, draw, pooling_windows
from nansparse.plan import plan_windows
from nansparse.policy import check_generator, check_tie_rule
from nansparse.sites import Sites
from nansparse.windows import Windows


@dataclass(frozen=True)
class WindowPeaks:
    """What a finder says about M windows of C channels.

    Attributes:
        best: (M, C), the maximum over the real cells; -inf where a channel has none.
        winner: int64 (M, C), the kernel position of the first cell that holds it; any where there is none.
        count: Integer (M, C), how many cells tie.
        mark: Takes bool (M, C), gives bool (P + 2, C): True at the tied cells of those windows.
    """

    best: Tensor
    winner: Tensor
    count: Tensor
    mark: Callable[[Tensor], Tensor]


Finder = Callable[[Tensor, Tensor, float], WindowPeaks]


@dataclass(frozen=True)
class PooledRows:
    """A pooled sparse activation.

    Attributes:
        sites: The windows that hold a real cell, M of them; every other window is NaN.
        values: (M, C), NaN where the window is NaN.
        indices: int64 (M, C), flat over the input's spatial axes, as `F.max_pool2d` gives them.
        ties: Bool (P, C), True at the remembered tied cells of the input's rows; None in aggressive mode.
    """

    sites: Sites
    values: Tensor
    indices: Tensor
    ties: Tensor | None


def pool_rows(
    activation: SparseActivation,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    mode: str,
    max_ties: int = 1,
    epsilon: float = 1e-7,
    nan_probability: float = 1.0,
    generator: torch.Generator | None = None,
    find: Finder | None = None,
) -> PooledRows:
    """Pool as `nansparse.functional.nan_max_pool` does, without laying the activation out.

    Args:
        activation: The input, P rows.
        kernel_size: As in `torch.nn.functional.max_pool2d`.
        stride: As there.
        padding: As there.
        dilation: As there.
        ceil_mode: As there.
        mode: "conservative" or "aggressive".
        max_ties: A window is unstable when more cells than this tie.
        epsilon: Relative tolerance of a tie.
        nan_probability: Aggressive mode: probability with which an unstable window becomes NaN.
        generator: Source of random numbers for that, on the CPU; needed when the probability is below 1.
        find: Finds maxima and ties; `cell_peaks` when None, which `python -m benchmarks pooling` shows to be
            the fastest.

    Returns:
        Values, indices and remembered ties at the windows that hold a real cell.

    Raises:
        InputError: If an option is wrong.
    """
    check_tie_rule(mode, max_ties, epsilon, nan_probability)
    check_generator(nan_probability, generator)
    grid = activation.sites.grid
    windows = pooling_windows(grid, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
    if not _is_tame(activation):
        given: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        given |= {"ceil_mode": ceil_mode, "mode": mode, "max_ties": max_ties, "epsilon": epsilon}
        given |= {"nan_probability": nan_probability, "generator": generator}
        pooled = nan_max_pool(activation.to_dense(), kernel_size, **given)
        return _on_rows(pooled.values, pooled.indices, pooled.ties, activation)
    rows = F.pad(activation.rows, (0, 0, 0, 2), value=-torch.inf)
    holes, mask = activation.holes
    if len(holes):
        rows[holes] = rows.index_select(0, holes).masked_fill_(mask, -torch.inf)
    sites, table = _windows_met(activation, windows)
    peaks = (find or cell_peaks)(rows, table, epsilon)
    unstable, nan = peaks.count > max_ties, peaks.best.isneginf()
    ties = None
    if mode == "conservative":
        ties = peaks.mark(unstable)[: len(activation.rows)]
    else:
        nan = nan | (unstable & _drawn(sites, activation.channels, nan_probability, generator))
    cells = windows.table(rows.device)[sites.numbers % torch.Size(windows.out_grid).numel()]
    first = (cells >= 0).to(torch.uint8).argmax(1, keepdim=True)
    indices = cells.gather(1, torch.where(nan, first, peaks.winner))
    return PooledRows(sites, peaks.best.masked_fill(nan, torch.nan), indices, ties)


def cell_peaks(rows: Tensor, table: Tensor, epsilon: float) -> WindowPeaks:
    """Find maxima and ties one kernel position at a time, with plain torch.

    Args:
        rows: (P + 2, C), finite at real cells, -inf at the others and in the last two rows.
        table: (M, K), the row of each cell; P and P + 1 stand for none.
        epsilon: Relative tolerance of a tie.

    Returns:
        The peaks.
    """
    columns = table.T.contiguous()
    cells = [rows.index_select(0, column) for column in columns]
    best, winner = cells[0].clone(), torch.zeros(cells[0].shape, dtype=torch.int64, device=rows.device)
    for position, cell in enumerate(cells[1:], 1):
        winner.masked_fill_(cell > best, position)
        torch.maximum(best, cell, out=best)
    near = tolerance(best, epsilon)
    tied = [(cell - best).abs_() <= near for cell in cells]
    count = torch.zeros_like(winner, dtype=torch.int32)
    for cell in tied:
        count += cell

    def mark(unstable: Tensor) -> Tensor:
        marks = torch.zeros(rows.shape, dtype=torch.bool, device=rows.device)
        for column, cell in zip(columns, tied, strict=True):
            # A row is met once at most by one kernel position; what stands for no row may be marked at will.
            marks[column] = marks[column] | (cell & unstable)
        return marks

    return WindowPeaks(best, winner, count, mark)


def tolerance(best: Tensor, epsilon: float) -> Tensor:
    """Say how far from the maximum a cell still ties, with the arithmetic of `torch.isclose`.

    Args:
        best: Maxima; -inf where there is none, which nothing ties with.
        epsilon: Relative tolerance.

    Returns:
        The right side of equation 3, shape and dtype of `best`.
    """
    return (best * epsilon).abs_().add_(TIE_ATOL)


def _is_tame(activation: SparseActivation) -> bool:
    """Whether no value is infinite or so near to it that it could be taken for a missing cell."""
    rows = zeroed_rows(activation)
    return not rows.numel() or bool(rows.abs().amax() < torch.finfo(rows.dtype).max)


def _windows_met(activation: SparseActivation, windows: Windows) -> tuple[Sites, Tensor]:
    """List the windows that read a row, and the rows they read."""
    whole = SparseActivation(activation.sites, activation.rows, partial=False)
    # Threshold 1 keeps every window with a real cell, but padding counts as real there.
    plan = plan_windows(whole, windows, 1.0)
    table = plan.taps[0].table
    met = (table < len(activation.rows)).any(1).nonzero().flatten()
    if len(met) == len(table):
        return plan.out, table
    return plan.out.take(met), table.index_select(0, met)


def _drawn(
    sites: Sites, channels: int, probability: float, generator: torch.Generator | None
) -> Tensor | bool:
    """Draw which unstable windows become NaN, in the order of `nan_max_pool`."""
    if probability >= 1.0:
        return True
    everywhere = draw((sites.batch, channels, *sites.grid), probability, generator)
    return everywhere.movedim(1, -1).reshape(-1, channels)[sites.numbers.cpu()].to(sites.device)


def _on_rows(
    values: Tensor, indices: Tensor, ties: Tensor | None, activation: SparseActivation
) -> PooledRows:
    """Take the rows of a dense result."""

    def at(sites: Sites, x: Tensor) -> Tensor:
        return x.movedim(1, -1).reshape(-1, x.shape[1])[sites.numbers]

    everywhere = Sites(None, values.shape[0], values.shape[2:], values.device)
    sites = everywhere.where(~values.isnan().all(1))
    remembered = None if ties is None else at(activation.sites, ties)
    return PooledRows(sites, at(sites, values), at(sites, indices), remembered)
