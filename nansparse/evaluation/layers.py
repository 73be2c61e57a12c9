"""One convolution: every engine against the best dense run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import registry
from nansparse.errors import InputError
from nansparse.evaluation.axes import NEW, read_channels, read_sizes
from nansparse.evaluation.conditions import find_device, fixed_conditions
from nansparse.evaluation.masks import nan_mask
from nansparse.evaluation.presets import PUBLISHED
from nansparse.evaluation.results import Cell, Results, Row
from nansparse.evaluation.timing import Timing, time_interleaved
from nansparse.execution import find_choice
from nansparse.pool import RowPool
from nansparse.windows import convolution_windows

DENSE, CHANNELS_LAST, AUTO = "dense, NCHW", "dense, channels_last", "auto"
_SEED = 0


def measure_layer(cell: Cell, repeats: int, engines: Sequence[str] = ()) -> list[Row]:
    """Time one convolution with every engine and in both dense layouts, interleaved.

    With the plan "new" every call makes the plan of its windows, as the first layer on a set of sites does;
    with "shared" it finds it made, as the layers after it do. What depends on the values, such as the sums of
    rows, and where rows are partly NaN the plan as well, is worked out in every call. Memory for rows comes
    from a pool, as within a `with` block of `nansparse.enable`.

    Args:
        cell: A value for every axis of `LAYER_AXES`.
        repeats: Samples of each way.
        engines: Names of engines, and "auto" for the planner's choice; all registered ones when empty.

    Returns:
        One row a way, dense first.
    """
    with fixed_conditions(int(cell["threads"])), closing(RowPool()) as pool:
        device = find_device(str(cell["device"]))
        x, weight, mask = _operands(cell, device)
        windows = convolution_windows(
            x.shape[2:], tuple(weight.shape[2:]), int(cell["stride"]), _padding(weight)
        )
        convolution = Convolution(weight, None, windows, 1, float(cell["threshold"]))
        activation = SparseActivation.from_dense(x.masked_fill(mask, torch.nan))
        ways = _dense_ways(x, weight, int(cell["stride"]))
        reasons: dict[str, list[str]] = {}
        for name in engines or [*registry.names(), AUTO]:
            reasons[name] = (
                [] if name == AUTO else registry.get(name).unsupported_reasons(activation, convolution)
            )
            if not reasons[name]:
                ways[name] = _sparse_way(name, activation, convolution, pool, plan=str(cell["plan"]))
        times = time_interleaved(ways, repeats=repeats, device=device)
        kept = len(registry.get("dense").run(activation, convolution).sites)
    skipped = 1 - kept / (x.shape[0] * math.prod(windows.out_grid))
    return _rows(cell, times, reasons, skipped)


def check_layer(cell: Cell) -> None:
    """Check that a cell is a convolution at all, before anything is run.

    Args:
        cell: A value for every axis of `LAYER_AXES`.

    Raises:
        InputError: If the kernel has another number of axes than the grid, or does not fit it.
    """
    kernel = _kernel(cell)
    convolution_windows(read_sizes(str(cell["size"])), kernel, int(cell["stride"]), tuple(map(_same, kernel)))


def _rows(cell: Cell, times: dict[str, Timing], reasons: dict[str, list[str]], skipped: float) -> list[Row]:
    """Write the times of one cell as rows, dense first."""
    best = min(times[DENSE].median, times[CHANNELS_LAST].median)
    rows = []
    for name in [DENSE, CHANNELS_LAST, *reasons]:
        if reasons.get(name):
            rows.append(Row(cell, name, status="unsupported", fault="; ".join(reasons[name])))
            continue
        speed_up = best / times[name].median
        values: dict[str, float | None] = {"speed_up": speed_up}
        if name in reasons:
            values["windows_skipped"] = skipped
            values["limit"] = 1 / (1 - skipped) if skipped < 1 else None
            values["share_of_limit"] = speed_up * (1 - skipped) if skipped < 1 else None
        rows.append(Row(cell, name, timing=times[name].to_dict(), values=values))
    return rows


def _operands(cell: Cell, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Draw input, weight and mask of a cell."""
    grid = read_sizes(str(cell["size"]))
    channels, out_channels = read_channels(str(cell["channels"]))
    generator = torch.Generator().manual_seed(_SEED)
    dtype = getattr(torch, str(cell["dtype"]))
    x = torch.randn(int(cell["batch"]), channels, *grid, generator=generator).to(device, dtype)
    weight = torch.randn(out_channels, channels, *_kernel(cell), generator=generator).to(device, dtype)
    mask = nan_mask(str(cell["mask"]), channels, grid, float(cell["nan_ratio"]), generator)
    return x, weight, mask.to(device)


def _kernel(cell: Cell) -> tuple[int, ...]:
    axes, kernel = len(read_sizes(str(cell["size"]))), read_sizes(str(cell["kernel"]))
    kernel = kernel * axes if len(kernel) == 1 else kernel
    if len(kernel) != axes:
        raise InputError(f"kernel {cell['kernel']} has another number of axes than size {cell['size']}")
    return kernel


def _same(size: int) -> int:
    """Pad so that an odd kernel keeps the grid."""
    return size // 2 if size % 2 else 0


def _padding(weight: Tensor) -> tuple[int, ...]:
    return tuple(map(_same, weight.shape[2:]))


def _dense_ways(x: Tensor, weight: Tensor, stride: int) -> dict[str, Callable[[], Any]]:
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    run = F.conv2d if x.dim() == 4 else F.conv3d
    last, last_weight = x.to(memory_format=layout), weight.to(memory_format=layout)
    padding = _padding(weight)
    return {
        DENSE: lambda: run(x, weight, stride=stride, padding=padding),
        CHANNELS_LAST: lambda: run(last, last_weight, stride=stride, padding=padding),
    }


def _sparse_way(
    name: str, activation: SparseActivation, convolution: Convolution, pool: RowPool, *, plan: str
) -> Callable[[], Any]:
    def run() -> SparseActivation:
        if plan == NEW:
            activation.sites.plans.clear()
        fresh = activation.with_values(activation.values)
        if name == AUTO:
            engine = find_choice(registry, AUTO, fresh, convolution, {}).engines[0]
        else:
            engine = registry.get(name)
        with pool.serve():
            return engine.run(fresh, convolution)

    return run


def published_beside_ours(results: Results) -> list[dict[str, Any]]:
    """Put our speed-ups beside the published ones of the method's time trials.

    Args:
        results: Of `measure_layer` on those trials (other cells are left out).

    Returns:
        For each share of NaN: ours by size (the planner's choice over the best dense run) and the published
        range (over a convolution written as a Python loop), None where nothing was published.
    """
    found: dict[float, dict[str, Any]] = {}
    for row in results.rows:
        cell = row.cell
        trial = (cell["channels"], cell["kernel"], cell["mask"], cell["threshold"]) == (
            "1",
            "2",
            "sites",
            0.5,
        )
        if not (trial and row.done and row.way == AUTO and row.seconds):
            continue
        share = float(cell["nan_ratio"])
        low, high = PUBLISHED.get(share, (None, None))
        entry = found.setdefault(
            share, {"nan_ratio": share, "published_low": low, "published_high": high, "ours": {}}
        )
        entry["ours"][cell["size"]] = row.values["speed_up"]
    return [found[share] for share in sorted(found)]
