"""Reading a sparse activation at other places: crops, paddings, interpolation, windowed averages.

What such an operation reads is said axis by axis: output place o of an axis reads the cells `cells[o]`, with
`OUTSIDE` for a place beyond the grid. An output is missing where a cell it reads is missing, whatever its
weight, as NaN spreads in IEEE arithmetic.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.sites import Sites

OUTSIDE = -1


def picked(activation: SparseActivation, cells: list[Tensor], outside: float = 0.0) -> SparseActivation:
    """Give every output place the value of one cell.

    Args:
        activation: The input.
        cells: One int64 (out,) an axis.
        outside: Value of places beyond the grid.

    Returns:
        The activation over the output grid.
    """
    sites = activation.sites
    if all(torch.equal(c, torch.arange(g, device=c.device)) for c, g in zip(cells, sites.grid, strict=True)):
        return activation
    rows = sites.row_of
    for axis, chosen in enumerate(cells, start=1):
        rows = _read(rows, axis, chosen, len(sites))
    kept, table = _kept(activation, [rows])
    source = activation.rows
    if any(int(c.min()) == OUTSIDE for c in cells if len(c)):
        source = torch.cat([source, source.new_full((1, activation.channels), outside)])
    return SparseActivation(kept, source.index_select(0, table[0]), activation.partial)


def blended(activation: SparseActivation, cells: list[Tensor], weights: list[Tensor]) -> SparseActivation:
    """Give every output place the weighted sum of the cells it reads along each axis.

    Args:
        activation: The input.
        cells: One int64 (out, taps) an axis; places beyond the grid count as zeros.
        weights: Their weights, one (out, taps) an axis.

    Returns:
        The activation over the output grid; sums are taken in float32 or wider.
    """
    dtype = activation.rows.dtype
    wide = activation.with_rows(activation.rows.to(torch.promote_types(dtype, torch.float32)))
    for axis, (read, weight) in enumerate(zip(cells, weights, strict=True)):
        wide = _blended_along(wide, axis, read, weight)
    return wide.narrowed(wide.rows.to(dtype))


def _blended_along(
    activation: SparseActivation, axis: int, cells: Tensor, weights: Tensor
) -> SparseActivation:
    """Blend along one axis."""
    sites = activation.sites
    own = torch.arange(sites.grid[axis], device=cells.device)
    if all(torch.equal(read, own) for read in cells.unbind(1)) and bool((weights.sum(1) == 1).all()):
        return activation
    reads = [_read(sites.row_of, axis + 1, cells[:, k], len(sites)) for k in range(cells.shape[1])]
    kept, table = _kept(activation, reads)
    later = math.prod(kept.grid[axis + 1 :])
    place = torch.div(kept.numbers, max(later, 1), rounding_mode="floor") % max(kept.grid[axis], 1)
    source = torch.cat([activation.rows, activation.rows.new_zeros(1, activation.channels)])
    out = source.new_zeros(len(kept), activation.channels)
    for k, chosen in enumerate(table):
        weight = weights[:, k].to(out.dtype).index_select(0, place)
        out.addcmul_(source.index_select(0, chosen), weight[:, None])
    return SparseActivation(kept, out, activation.partial)


def _read(rows: Tensor, axis: int, cells: Tensor, outside: int) -> Tensor:
    """Read a map of rows along one axis; places beyond the grid have the row `outside`."""
    # One more cell at the end of the axis; OUTSIDE, taken modulo, leads there.
    longer = F.pad(rows, [0, 0] * (rows.dim() - 1 - axis) + [0, 1], value=outside)
    return longer.index_select(axis, cells % longer.shape[axis])


def _kept(activation: SparseActivation, reads: list[Tensor]) -> tuple[Sites, list[Tensor]]:
    """Find the output sites all of whose cells are there, and the rows those read."""
    sites, grid = activation.sites, reads[0].shape[1:]
    if sites.is_complete:
        return Sites(None, sites.batch, grid, sites.device), [read.flatten() for read in reads]
    missing = len(sites) + 1
    keep = reads[0] != missing
    for read in reads[1:]:
        keep &= read != missing
    same = tuple(grid) == sites.grid
    kept = (sites if same else Sites(None, sites.batch, grid, sites.device)).where(keep)
    return kept, [read[keep] for read in reads]
