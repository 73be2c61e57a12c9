"""Bringing two operands to the sites that both have."""

from typing import Any

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.marked import MarkedTensor
from nansparse.pending import OPERATIONS, Pending, steps_for
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


def combined(name: str, operands: list[SparseActivation]) -> SparseActivation | None:
    """Combine two activations on the sites that both have, by a compiled loop and when it is needed.

    Args:
        name: Of the torch function, without underscores.
        operands: The sparse ones among the operands.

    Returns:
        The result; None where there is no such loop.
    """
    if len(operands) != 2 or operands[0].channels != operands[1].channels:
        return None
    first, second = operands
    kernels = steps_for(first) if steps_for(second) is not None and first.dtype == second.dtype else None
    if kernels is None or name not in OPERATIONS:
        return None
    if name != "sub" and _is_scaled(second) and not _is_scaled(first):
        first, second = second, first
    steps = first.pending if _is_scaled(first) else None
    steps = Pending.start(kernels, first.values) if steps is None else steps
    partial = first.partial or second.partial
    if first.laid_out and second.laid_out:
        sites, nowhere = _common(first.sites, second.sites), first.sites.no_places
        steps = steps.combined(name, second.values, steps.count, nowhere, nowhere)
        return SparseActivation(sites, steps, partial, laid_out=True)
    sites, chosen, other_chosen = first.sites.meet(second.sites)
    places, others = _places(first, sites, chosen), _places(second, sites, other_chosen)
    return SparseActivation(sites, steps.combined(name, second.values, len(sites), places, others), partial)


def _is_scaled(activation: SparseActivation) -> bool:
    """Say whether values are pending and may be combined before they are computed."""
    return activation.pending is not None and not activation.pending.is_combined


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
    return _rows_of_dense(full.expand(sites.batch, -1, *sites.grid), sites)


def _rows_of_dense(x: Tensor, sites: Sites) -> Tensor:
    """Read a dense tensor (N, C, *spatial) at some sites, (P, C)."""
    last = x.movedim(1, -1)
    if sites.is_complete or last.is_contiguous():
        flat = last.reshape(sites.total, x.shape[1])
        return flat if sites.is_complete else flat.index_select(0, sites.numbers)
    return last[tuple(sites.coords.long().unbind(1))]
