"""The mean that NaN cells of a kept window take, as a correction to a convolution that read zeros there.

With x0 the activation with zeros for NaN, q the 0/1 mask of its NaN cells and mu the mean of a window's real
cells,

    (4)  conv(x with every NaN cell = mu, W) = conv(x0, W) + mu * conv(q, W).

Where whole sites are missing conv(q, W) needs only sum_c W[:, c, k]; only windows that meet a row which is
partly NaN need the second pass over the channels. Both terms touch the windows that hold NaN and no others.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.plan import Taps, WindowPlan
from nansparse.product import cells_per_chunk, product, rounded


def zeroed_rows(activation: SparseActivation) -> Tensor:
    """Give the rows with zeros for NaN.

    Args:
        activation: The input.

    Returns:
        (P, C); the activation's own rows, not a copy, if none holds NaN.
    """
    if not activation.partial:
        return activation.rows
    rows = activation.values.new_empty(len(activation.sites), activation.channels)
    write_zeroed_rows(activation, rows)
    return rows


def write_zeroed_rows(activation: SparseActivation, out: Tensor) -> None:
    """Write the rows with zeros for NaN, and zeros behind them.

    Args:
        activation: The input.
        out: (P or more, C); two rows more stand for what a plan calls padding and missing sites.
    """
    count = len(activation.sites)
    if activation.laid_out and not activation.sites.is_complete:
        torch.index_select(activation.values, 0, activation.sites.numbers, out=out[:count])
    else:
        out[:count] = activation.values
    out[count:] = 0
    holes, mask = activation.holes
    if len(holes):
        # Infinities are the network's own and stay.
        out[holes] = out.index_select(0, holes).masked_fill_(mask, 0.0)


def add_fill_terms(
    out: Tensor,
    rows: Tensor,
    activation: SparseActivation,
    convolution: Convolution,
    plan: WindowPlan,
    *,
    laid_out: bool = False,
) -> None:
    """Add mu * conv(q, W) of equation 4 to the windows that hold NaN, in place.

    Args:
        out: (M, C_out), conv(x0, W) at the kept windows; at all windows if `laid_out`.
        rows: (P, C) with zeros for NaN, rows behind those are ignored; (N * grid, C) if `laid_out`.
        activation: The input.
        convolution: The convolution, with one group.
        plan: Its plan.
        laid_out: Whether `out` and `rows` have a row for every site of their grids.
    """
    if not len(plan.filled):
        return
    wide = torch.float32 if rows.dtype in (torch.float16, torch.bfloat16) else rows.dtype
    sites = activation.sites
    sums = (rows if laid_out else rows[: len(sites)]).sum(1, dtype=wide)
    if laid_out and not sites.is_complete:
        sums = sums.index_select(0, sites.numbers)
    sums = F.pad(sums, (0, 2))
    for taps in plan.taps:
        filled, where = _filled(plan, taps)
        if not len(filled):
            continue
        table = taps.table.index_select(0, filled)
        real = _real_cells(activation, plan, where)
        mean = sums.index_select(0, table.flatten()).view(table.shape).sum(1).div_(real)
        weight = convolution.packed(taps.positions).to(wide)
        missing = (table == len(sites) + 1).to(wide)
        term = missing @ weight.unflatten(1, (table.shape[1], -1)).sum(2).T
        if activation.partial:
            _add_partial(term, table, weight, activation)
        if laid_out and not plan.out.is_complete:
            where = plan.out.numbers.index_select(0, where)
        out.index_add_(0, where, term.mul_(mean[:, None]).to(out.dtype))


def _filled(plan: WindowPlan, taps: Taps) -> tuple[Tensor, Tensor]:
    """Find the windows of these taps that hold NaN: their rows in the table, and in the output."""
    if taps.outputs is None:
        return plan.filled, plan.filled
    rows = plan.nan_cells[taps.outputs].nonzero().flatten()
    return rows, taps.outputs.index_select(0, rows).long()


def _real_cells(activation: SparseActivation, plan: WindowPlan, where: Tensor) -> Tensor:
    cells = plan.cells if isinstance(plan.cells, int) else plan.cells[where]
    real = cells - plan.nan_cells[where].long()
    return real if activation.partial else real * activation.channels


def _add_partial(term: Tensor, table: Tensor, weight: Tensor, activation: SparseActivation) -> None:
    """Add conv(q, W) of rows that are partly NaN, for the windows that meet one."""
    holes, mask = activation.holes
    # Rows without NaN share one row of zeros, the last.
    mask_of = table.new_full((len(activation.sites) + 2,), len(holes))
    mask_of[holes] = torch.arange(len(holes), dtype=mask_of.dtype, device=mask_of.device)
    marks = F.pad(mask.to(weight.dtype), (0, 0, 0, 1))
    found = mask_of.index_select(0, table.flatten()).view(table.shape)
    met = (found.amin(1) < len(holes)).nonzero().flatten()
    step = max(cells_per_chunk(weight.device) // weight.shape[1], 1)
    for chosen in met.split(step):
        # A size met before costs the library no new code: the windows added here read nothing.
        wanted = found.new_full((rounded(len(chosen)), table.shape[1]), len(holes))
        torch.index_select(found, 0, chosen, out=wanted[: len(chosen)])
        cells = marks.index_select(0, wanted.flatten()).view(len(wanted), -1)
        term.index_add_(0, chosen, product(cells, weight)[: len(chosen)])
