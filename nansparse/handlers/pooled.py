"""From the peaks of pooling windows to the pooled activation."""

from typing import Any

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.functional.pooling import TIE_ATOL, draw
from nansparse.model_call import ModelCall
from nansparse.sites import Sites
from nansparse.ties import Peaks


def finish_overlapping(
    call: ModelCall,
    cells: list[Tensor],
    peaks: Peaks,
    sites: Sites,
    facts: dict[str, Any],
) -> Any:
    """Turn peaks into values where windows overlap, are padded or large, and nobody wants indices.

    Args:
        call: The state of the call.
        cells: One (P, C) a kernel position, -inf where there is no real cell.
        peaks: Their peaks.
        sites: The output sites, P of them.
        facts: What is recorded; `windows` is there already.

    Returns:
        The pooled tensor, marked if it holds NaN.
    """
    policy, values = call.policy, peaks.best.reshape(-1, peaks.best.shape[-1])
    # Windows of nothing but NaN and padding, in single channels or all.
    empty = values.isneginf()
    facts["windows_skipped"] = facts["windows"] - values.numel() + int(empty.sum())
    if policy.mode == "aggressive" and peaks.some_tie:
        unstable = _count_ties(cells, values, peaks.epsilon) > policy.max_ties
        if policy.nan_probability < 1.0:
            unstable &= drawn(call, sites, values.shape[1])
        facts["windows_skipped"] += int((unstable & ~empty).sum())
        empty |= unstable
    activation = SparseActivation(sites, values, partial=False)
    if bool(empty.any()):
        activation = without_empty(activation.with_rows(values.masked_fill(empty, torch.nan)), empty)
    held = activation.partial or not activation.sites.is_complete
    return call.wrap(activation) if held else plain(activation, call)


def _count_ties(cells: list[Tensor], best: Tensor, epsilon: float) -> Tensor:
    """Count the cells of each window that tie (equation 3), the maximum among them."""
    tolerance = (best * epsilon).abs_().add_(TIE_ATOL)
    count = torch.zeros(best.shape, dtype=torch.int32, device=best.device)
    for cell in cells:
        count += (best - cell) <= tolerance
    return count


def drawn(call: ModelCall, sites: Sites, channels: int) -> Tensor:
    """Draw which unstable windows may become NaN.

    Args:
        call: The state of the call.
        sites: The output sites, P of them.
        channels: Channels.

    Returns:
        Bool (P, C).
    """
    policy = call.policy
    shape = (sites.batch, channels, *sites.grid)
    chosen = draw(shape, policy.nan_probability, policy.generator).unflatten(2, sites.grid).movedim(1, -1)
    return chosen.reshape(-1, channels)[sites.numbers.cpu()].to(sites.device)


def plain(activation: SparseActivation, call: ModelCall) -> Tensor:
    """Lay out an activation without NaN in the memory format of the run.

    Args:
        activation: It.
        call: The state of the call.

    Returns:
        (N, C, *spatial).
    """
    dense = activation.to_dense()
    return dense if call.channels_last else dense.contiguous()


def without_empty(activation: SparseActivation, empty: Tensor) -> SparseActivation:
    """Drop the sites whose values are all NaN.

    Args:
        activation: The activation.
        empty: Bool (P, C), True where its rows are NaN.

    Returns:
        What is left.
    """
    kept = ~empty.all(1)
    partial = bool((empty.any(1) & kept).any())
    if bool(kept.all()):
        return SparseActivation(activation.sites, activation.rows, partial)
    chosen = kept.nonzero().flatten()
    rows = activation.rows.index_select(0, chosen)
    return SparseActivation(activation.sites.take(chosen), rows, partial)
