"""Max pooling, where NaN is made."""

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.errors import UnexpectedNaNError
from nansparse.fill import zeroed_rows
from nansparse.functional import nan_max_pool
from nansparse.functional.pooling import pooling_windows
from nansparse.handlers.arguments import REQUIRED, bind
from nansparse.handlers.pooled import drawn, finish_overlapping, plain, without_empty
from nansparse.handlers.tiled import peaks_of_image, peaks_of_sites
from nansparse.handlers.unbatched import TIES, pool_one
from nansparse.marked import MarkedTensor
from nansparse.model_call import Handler, ModelCall
from nansparse.plan import WindowPlan, plan_windows
from nansparse.policy import NEVER
from nansparse.sites import Sites
from nansparse.ties import (
    CELLS_IN_A_CODE,
    TilePeaks,
    find_peaks,
    tile_peaks,
    tiles_the_grid,
    window_cells,
)
from nansparse.unpooling import PoolMemory
from nansparse.windows import Windows

_POOL = [("input", REQUIRED), ("kernel_size", REQUIRED), ("stride", None), ("padding", 0), ("dilation", 1)]
_POOL = [*_POOL, ("ceil_mode", False), ("return_indices", False)]


def _pool(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run max_pool2d or max_pool3d, with or without indices."""
    bound = bind(_POOL, args, kwargs)
    if bound is None:
        return NotImplemented
    x = bound["input"]
    rank = 2 if "2d" in func.__name__ or func in (F.max_pool2d, F.max_pool2d_with_indices) else 3
    if not x.is_floating_point() or x.dim() not in (rank + 1, rank + 2):
        return NotImplemented
    indices_wanted = bound["return_indices"] or func in (F.max_pool2d_with_indices, F.max_pool3d_with_indices)
    if x.dim() == rank + 1:
        return pool_one(call, _pool, func, args, kwargs)
    options = [bound[name] for name in ("kernel_size", "stride", "padding", "dilation")]
    windows = pooling_windows(x.shape[2:], *options, ceil_mode=bound["ceil_mode"])
    call, marks = _switched(call, windows, indices_wanted=indices_wanted)
    with call.recorded(f"max_pool{rank}d") as facts:
        facts["windows"] = x.shape[0] * x.shape[1] * torch.Size(windows.out_grid).numel()
        if isinstance(x, MarkedTensor):
            return _pool_marked(call, x, windows, facts, indices_wanted=indices_wanted)
        region = call.uniform.of(x)
        pooled = _pool_plain(call, func, args, kwargs, windows, facts) if marks else func(*args, **kwargs)
        if region is not None:
            values = pooled[0] if isinstance(pooled, tuple) else pooled
            call.uniform.note(values, region.through(windows))
        return pooled


def _switched(call: ModelCall, windows: Windows, *, indices_wanted: bool) -> tuple[ModelCall, bool]:
    """Say whether this layer marks; where it was switched off, no window is unstable, NaN in it or not."""
    if call.policy.mode == "conservative" and not indices_wanted:
        return call, False
    if call.policy.marking != NEVER and (call.turn is None or call.turn.marks(call.layer())):
        return call, True
    silent = copy.copy(call)
    silent.policy = replace(call.policy, max_ties=max(windows.volume, 1))
    return silent, False


def _pool_plain(
    call: ModelCall,
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    windows: Windows,
    facts: dict[str, Any],
) -> Any:
    """Pool a tensor that holds no NaN: as torch does if no window ties."""
    bound = bind(_POOL, args, kwargs) or {}
    x = bound["input"]
    indices_wanted = bound["return_indices"] or func in (F.max_pool2d_with_indices, F.max_pool3d_with_indices)
    tiles = tiles_the_grid(windows, CELLS_IN_A_CODE)
    sites = Sites(None, x.shape[0], windows.out_grid, x.device)
    last = x.movedim(1, -1)
    tile = peaks_of_image(last, windows, sites, call.policy) if tiles else None
    if tile == "":
        return func(*args, **kwargs)
    if isinstance(tile, TilePeaks):
        return _finish(call, tile, sites, windows, facts, partial=False, indices_wanted=indices_wanted)
    cells = window_cells(last, windows)
    peaks = find_peaks(cells, call.policy.epsilon)
    total = peaks.best.sum()
    finite = bool(total.isfinite())
    if not finite and bool(peaks.best.isnan().any()):
        raise UnexpectedNaNError(
            f"NaN reached max pooling in {call.layer()!r} although the input of the model had none: look for "
            "NaN or Inf weights, or overflow, in a run without nansparse"
        )
    if finite and not peaks.some_tie:
        return func(*args, **kwargs)
    if finite and not tiles and not indices_wanted:
        flat = [cell.reshape(-1, x.shape[1]) for cell in cells]
        return finish_overlapping(call, flat, peaks, sites, facts)
    if not finite or not tiles:
        return _pool_literally(call, x, windows, facts, indices_wanted=indices_wanted)
    tile = tile_peaks(cells, peaks, call.policy.max_ties)
    return _finish(call, tile, sites, windows, facts, partial=False, indices_wanted=indices_wanted)


def _pool_marked(
    call: ModelCall, x: MarkedTensor, windows: Windows, facts: dict[str, Any], *, indices_wanted: bool
) -> Any:
    """Pool a sparse activation on its rows."""
    activation = x.sparse()
    tiles = tiles_the_grid(windows, CELLS_IN_A_CODE)
    options = {"partial": activation.partial, "indices_wanted": indices_wanted}
    # Threshold 1 keeps every window with a real cell.
    whole = SparseActivation(activation.sites, activation.values, partial=False, laid_out=activation.laid_out)
    plan = plan_windows(whole, windows, 1.0)
    tile = peaks_of_sites(activation, plan, windows, call.policy) if tiles else None
    if tile is not None:
        facts["engine"] = "rows"
        return _finish(call, tile, plan.out, windows, facts, **options)
    if (indices_wanted and not tiles) or not bool(zeroed_rows(activation).sum().isfinite()):
        facts["densified"] = 1
        return _pool_literally(call, x.dense(), windows, facts, indices_wanted=indices_wanted)
    facts["engine"] = "rows"
    cells = _cells_of_rows(activation, plan, windows)
    peaks = find_peaks(cells, call.policy.epsilon)
    if not tiles:
        return finish_overlapping(call, cells, peaks, plan.out, facts)
    return _finish(call, tile_peaks(cells, peaks, call.policy.max_ties), plan.out, windows, facts, **options)


def _cells_of_rows(activation: SparseActivation, plan: WindowPlan, windows: Windows) -> list[Tensor]:
    """Gather the cells of windows, one tensor a kernel position, -inf where there is none."""
    rows = activation.rows
    lowest = rows.new_empty(len(rows) + 2, activation.channels)
    lowest[: len(rows)] = rows
    lowest[len(rows) :] = -torch.inf
    holes, mask = activation.holes
    if len(holes):
        lowest[holes] = rows.index_select(0, holes).masked_fill_(mask, -torch.inf)
    table = plan.taps[0].table
    return [lowest.index_select(0, table[:, k]) for k in range(windows.volume)]


def _finish(
    call: ModelCall,
    tile: TilePeaks,
    sites: Sites,
    windows: Windows,
    facts: dict[str, Any],
    *,
    partial: bool,
    indices_wanted: bool,
) -> Any:
    """Turn peaks and ties into values and memory, by the mode of the run."""
    policy = call.policy
    values, codes, unstable, winner = tile.values, tile.codes, tile.unstable, tile.winner
    channels = values.shape[1]
    empty, count = values.isneginf() if partial else None, tile.count
    if policy.mode == "aggressive":
        if policy.nan_probability < 1.0:
            unstable, count = unstable * drawn(call, sites, channels), None
        empty = unstable.bool() if empty is None else unstable.bool() | empty
    count = int(unstable.sum()) if count is None else count
    facts["windows_skipped"] = facts["windows"] - len(sites) * channels + count
    activation = SparseActivation(sites, values, partial=False)
    if empty is not None:
        # The index of a NaN window is its first cell, bit 0.
        gone = empty.view(torch.uint8)
        winner = winner * (1 - gone) + gone
        activation = without_empty(activation.with_rows(values.masked_fill(empty, torch.nan)), empty)
    held = activation.partial or not activation.sites.is_complete
    pooled = call.wrap(activation) if held else plain(activation, call)
    if not indices_wanted:
        return pooled
    remembered = codes if policy.mode == "conservative" else None
    everywhere = _everywhere(winner, sites, 1)
    codes_everywhere = None if remembered is None else _everywhere(remembered, sites, 0)
    memory = PoolMemory(windows, sites.batch, everywhere, codes_everywhere)
    return pooled, call.wrap(memory)


def _everywhere(rows: Tensor, sites: Sites, fill: int) -> Tensor:
    """Lay bytes out over all windows."""
    if sites.is_complete:
        return rows
    return rows.new_full((sites.total, rows.shape[1]), fill).index_copy_(0, sites.numbers, rows)


def _pool_literally(
    call: ModelCall, x: Tensor, windows: Windows, facts: dict[str, Any], *, indices_wanted: bool
) -> Any:
    """Pool with the definition itself: overlapping or padded windows, large ones, infinities."""
    policy = call.policy
    facts.update(engine="functional")
    ceil = pooling_windows(
        windows.grid, windows.kernel, windows.stride, windows.padding, windows.dilation, ceil_mode=False
    )
    result = nan_max_pool(
        x,
        windows.kernel,
        windows.stride,
        windows.padding,
        windows.dilation,
        windows.out_grid != ceil.out_grid,
        mode=policy.mode,
        max_ties=policy.max_ties,
        epsilon=policy.epsilon,
        nan_probability=policy.nan_probability,
        generator=policy.generator,
    )
    facts["windows_skipped"] = int(result.values.isnan().sum())
    values = call.mark(result.values)
    if not indices_wanted:
        return values
    if result.ties is not None and bool(result.ties.any()):
        call.record.marked = True
        setattr(result.indices, TIES, result.ties)
    return values, result.indices


_MAX_POOLS = (F.max_pool2d, F.max_pool3d, F.max_pool2d_with_indices, F.max_pool3d_with_indices)
HANDLERS: dict[Any, Handler] = dict.fromkeys((*_MAX_POOLS, torch.max_pool2d, torch.max_pool3d), _pool)
