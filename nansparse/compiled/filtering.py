"""A 3 x 3 (x 3) convolution by Winograd's minimal filtering, over the tiles that hold a kept window."""

import math

import numpy as np
import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled.availability import Kernels
from nansparse.compiled.multiplication import CHUNKS_PER_THREAD, SHARED_SUMS, panel_shape
from nansparse.compiled.plans import PADDING, geometry_of, three
from nansparse.convolution import Convolution
from nansparse.plan import WindowPlan


def list_tiles(kernels: Kernels, plan: WindowPlan) -> Tensor:
    """List the tiles that hold a kept window.

    Args:
        kernels: The loops.
        plan: Of a 3 x 3 or 3 x 3 x 3 convolution.

    Returns:
        int64 (T,), numbered as `nansparse.compiled.tiles` says.
    """
    goals, deep = _rows_of(plan), 2 if len(plan.windows.grid) == 3 else 1
    batch, planes, lines, _ = goals.shape
    counts = torch.empty(batch * -(-planes // deep) * -(-lines // 2), dtype=torch.int64)
    kernels.run(kernels.tiles.count_tiles, goals, len(plan.out), deep, counts)
    ends = counts.cumsum(0)
    numbers = torch.empty(int(ends[-1]) if len(ends) else 0, dtype=torch.int64)
    kernels.run(kernels.tiles.list_tiles, goals, len(plan.out), deep, ends.sub_(counts), numbers)
    return numbers


def multiply_in_tiles(
    kernels: Kernels,
    out: Tensor,
    activation: SparseActivation,
    convolution: Convolution,
    plan: WindowPlan,
    tiles: Tensor,
) -> bool:
    """Write the results of all kept windows.

    Args:
        kernels: The loops.
        out: (M, C_out), written.
        activation: The input; no row is partly NaN.
        convolution: 3 x 3 or 3 x 3 x 3 with one group, stride 1 and dilation 1, not transposed.
        plan: Its plan.
        tiles: Of `list_tiles`.

    Returns:
        Whether all of it can be used. Where infinities meet, be they the input's own or products that left
        float32, a window may get NaN or infinity from a cell that it does not read.
    """
    if not len(tiles):
        return True
    sites, windows = activation.sites, plan.windows
    shape, at_once, panel = panel_shape(kernels, convolution.out_channels)
    chunks = min(-(-len(tiles) // at_once), CHUNKS_PER_THREAD * torch.get_num_threads())
    checks = np.empty(chunks, np.float32)
    kernels.run(
        kernels.winograd.multiply_tiles,
        *(
            activation.values,
            activation.places,
            sites.row_of.view(sites.batch, *three(sites.grid)),
            len(sites),
        ),
        *(_rows_of(plan), tiles, geometry_of(windows)[PADDING], *_fills(activation, plan)),
        *(
            *_transformed(kernels, convolution, panel, fills=bool(plan.fills)),
            shape,
            at_once,
            chunks,
            out,
            checks,
        ),
    )
    return math.isfinite(checks.sum())


def _rows_of(plan: WindowPlan) -> Tensor:
    return plan.out.row_of.view(plan.out.batch, *three(plan.out.grid))


def _fills(activation: SparseActivation, plan: WindowPlan) -> tuple[Tensor, Tensor]:
    """Give the NaN cells of each window and the sums of rows, or nothing where nothing is to be filled."""
    none = activation.values.new_empty(0)
    if not plan.fills:
        return none.int(), none
    shared = plan.fills * plan.windows.volume > SHARED_SUMS * len(plan.out)
    return plan.nan_cells.int(), activation.sums[0] if shared else none


def _transformed(
    kernels: Kernels, convolution: Convolution, panel: int, *, fills: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Give weight, its sums over the input channels, and bias, as `multiply_tiles` wants them."""
    taps = convolution.taps_last
    out, channels, volume = taps.shape
    panels = -(-out // panel)
    weight = taps.new_empty(16 if volume == 9 else 64, panels, channels, panel)
    shares = taps.new_empty(panels if fills else 0, volume, panel)
    kernels.run(kernels.filters.transform_weight, taps.detach().numpy(), weight, shares)
    bias = taps.new_zeros(panels * panel)
    if convolution.bias is not None:
        bias[:out] = convolution.bias
    return weight, shares, bias
