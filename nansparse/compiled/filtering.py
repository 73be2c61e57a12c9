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

# G of `nansparse.compiled.transforms`, from the three cells of a kernel's line to four; and G along two and
# three axes, by the cells of the kernel.
_G = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
ALONG_AXES = {9: torch.from_numpy(np.kron(_G, _G)), 27: torch.from_numpy(np.kron(_G, np.kron(_G, _G)))}


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
            *_transformed(convolution, panel, fills=bool(plan.fills)),
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


def _transformed(convolution: Convolution, panel: int, *, fills: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Give G g G^T, the sums of g over the input channels, and bias, as `multiply_tiles` wants them."""
    # In every call, which takes little: nobody needs to know when a weight was changed.
    taps = convolution.taps_last.detach()
    out, channels, volume = taps.shape
    panels, whole = -(-out // panel), out // panel
    laid = taps.new_zeros(volume, panels, channels, panel)
    laid[:, :whole] = taps[: whole * panel].view(whole, panel, channels, volume).permute(3, 0, 2, 1)
    if whole < panels:
        laid[:, whole, :, : out - whole * panel] = taps[whole * panel :].permute(2, 1, 0)
    # In float64, of which neither autocast nor a lower precision of matrix products takes anything away.
    weight = (ALONG_AXES[volume] @ laid.flatten(1).double()).float().view(-1, *laid.shape[1:])
    shares = laid.sum(2).transpose(0, 1).contiguous() if fills else laid.new_empty(0, volume, panel)
    bias = taps.new_zeros(panels * panel)
    if convolution.bias is not None:
        bias[:out] = convolution.bias
    return weight, shares, bias
