"""The product of kept windows with the weight, launched."""

from typing import Any

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled.plans import three
from nansparse.convolution import Convolution
from nansparse.fused.availability import Fused
from nansparse.fused.plans import geometry
from nansparse.plan import WindowPlan
from nansparse.product import tf32_is_allowed

# What the unit that multiplies matrices takes at least along each side.
NARROWEST = 16
# Windows, output channels and input channels of a tile; measured on an H200, where larger tiles were slower.
TILE_WINDOWS, MOST_OUTPUTS, MOST_CHANNELS = 128, 64, 32


def multiply_windows(
    fused: Fused, activation: SparseActivation, convolution: Convolution, plan: WindowPlan
) -> Tensor:
    """Compute the kept windows of a convolution with one group.

    Args:
        fused: The kernels.
        activation: The input.
        convolution: What to compute.
        plan: Its plan.

    Returns:
        (M, C_out).
    """
    values, windows, sites = activation.values, plan.windows, plan.sites
    weight = convolution.taps_last.permute(2, 1, 0).contiguous()
    shape = len(plan.out), convolution.out_channels
    out = values.new_empty(shape)
    if not out.numel():
        return out
    fill = activation.partial or not sites.is_complete
    nothing = values.new_empty(0)
    sums = shares = nothing
    if fill:
        wide = values.float()
        sums = wide.nansum(1) if activation.partial else wide.sum(1)
        shares = nothing if activation.partial else weight.sum(1, dtype=torch.float32)
    cells = plan.cells.int() if isinstance(plan.cells, Tensor) else nothing
    tiles = tile_sizes(shape[1], activation.channels)
    grid = (-(-shape[0] // tiles["tile_windows"]), -(-shape[1] // tiles["tile_outputs"]))
    with torch.cuda.device_of(values):
        fused.products.multiply_windows[grid](
            *(values, nothing if sites.is_complete else sites.row_of),
            *(nothing if plan.out.is_complete else plan.out.numbers, sums),
            *(plan.nan_cells.int() if fill else nothing, cells, weight, shares),
            *(nothing if convolution.bias is None else convolution.bias, out, shape[0], len(sites)),
            *(*three(windows.out_grid), *three(windows.grid)),
            channels=activation.channels,
            outputs=shape[1],
            fill=fill,
            partial=activation.partial,
            biased=convolution.bias is not None,
            listed=not plan.out.is_complete,
            complete=sites.is_complete,
            laid_out=activation.laid_out,
            transposed=windows.transposed,
            tf32=tf32_is_allowed(),
            **tiles,
            **geometry(windows),
        )
    return out


def tile_sizes(outputs: int, channels: int) -> dict[str, Any]:
    """Choose what one program computes.

    Args:
        outputs: Output channels.
        channels: Input channels.

    Returns:
        The arguments of the kernel and of its launch that say so.
    """
    return {
        "tile_windows": TILE_WINDOWS,
        "tile_outputs": min(max(1 << (outputs - 1).bit_length(), NARROWEST), MOST_OUTPUTS),
        "tile_channels": NARROWEST if channels <= NARROWEST else MOST_CHANNELS,
        "num_warps": 4,
        "num_stages": 3,
    }
