"""Bringing two operands to the sites that both have."""

from typing import Any

import torch
from torch import Tensor

from nansparse.activation import SparseActivation, rows_of_dense
from nansparse.compiled import kernels_for
from nansparse.marked import MarkedTensor
from nansparse.sites import Sites
from nansparse.unpooling import Unpooled


def read_operands(args: tuple[Any, ...]) -> list[Any]:
    """Give the sparse form of marked operands.

    Args:
        args: Two operands.

    Returns:
        Them, sparse activations in place of marked tensors. An unpooled one is read only where the other has
        a site.
    """
    lazy = [isinstance(a, MarkedTensor) and isinstance(a.payload, Unpooled) for a in args]
    operands: list[Any] = [
        a.sparse() if isinstance(a, MarkedTensor) and not late else a
        for a, late in zip(args, lazy, strict=True)
    ]
    for at, late in enumerate(lazy):
        other = operands[1 - at]
        if late and isinstance(other, SparseActivation):
            operands[at] = args[at].payload.at(other.sites)
        elif late:
            operands[at] = args[at].sparse()
    return operands


def combined(name: str, operands: list[SparseActivation]) -> tuple[Sites, Tensor] | None:
    """Combine two activations on the sites that both have, by a compiled loop.

    Args:
        name: Of the torch function, without underscores.
        operands: The sparse ones among the operands.

    Returns:
        The common sites and their rows; None where there is no such loop, or nothing to gain.
    """
    if len(operands) != 2 or operands[0].channels != operands[1].channels:
        return None
    first, second = operands
    kernels = kernels_for(first.values) if kernels_for(second.values) is not None else None
    if kernels is None or first.sites is second.sites or (first.laid_out and second.laid_out):
        return None
    operations = kernels.combining.OPERATIONS
    if name not in operations:
        return None
    sites, chosen, other_chosen = first.sites.meet(second.sites)
    rows = first.values.new_empty(len(sites), first.channels)
    kernels.run(
        kernels.combining.combine_rows,
        *(first.values, _places(first, sites, chosen), second.values, _places(second, sites, other_chosen)),
        *(operations.index(name), rows),
    )
    return sites, rows


def _places(activation: SparseActivation, sites: Sites, chosen: Tensor | None) -> Tensor:
    """Say where the values of some sites lie, empty if they are in order."""
    if activation.laid_out and not activation.sites.is_complete:
        return sites.numbers
    return sites.no_places if chosen is None else chosen.long()


def aligned(operands: list[Any]) -> tuple[Sites, list[Any]]:
    """Bring both operands to the sites that both have, as rows of those or of the whole grid.

    Args:
        operands: Two, at least one of them sparse.

    Returns:
        The sites, and the operands there: numbers, tensors that broadcast over rows, or activations.
    """
    both = [operand for operand in operands if isinstance(operand, SparseActivation)]
    sites = both[0].sites
    if all(operand.laid_out for operand in both):
        everywhere = Sites(None, sites.batch, sites.grid, sites.device)
        if len(both) == 2:
            sites = _common(both[0].sites, both[1].sites)
        return sites, [_at_sites(operand, everywhere) for operand in operands]
    if len(both) == 2 and both[0].sites is not both[1].sites:
        sites, first, second = both[0].sites.meet(both[1].sites)
        return sites, [both[0].restricted(sites, first), both[1].restricted(sites, second)]
    compact = [a.with_rows(a.rows) if isinstance(a, SparseActivation) else a for a in operands]
    return sites, [_at_sites(operand, sites) for operand in compact]


def _common(first: Sites, second: Sites) -> Sites:
    if first is second or second.is_complete:
        return first
    return second if first.is_complete else first.where(first.mask & second.mask)


def _at_sites(operand: Any, sites: Sites) -> Any:
    """Read a plain operand at the sites, with the broadcasting that torch does."""
    if not isinstance(operand, Tensor) or operand.dim() == 0:
        return operand
    rank = len(sites.grid)
    full = operand[(None,) * (rank + 2 - operand.dim())]
    if all(size == 1 for size in full.shape[2:]):
        flat = full.flatten(1)
        if full.shape[0] == 1:
            return flat
        per_sample = sites.total // max(sites.batch, 1)
        return flat.index_select(0, torch.div(sites.numbers, per_sample, rounding_mode="floor"))
    return rows_of_dense(full.expand(sites.batch, -1, *sites.grid), sites)
