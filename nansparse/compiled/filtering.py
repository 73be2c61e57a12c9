"""A 3 x 3 (x 3) convolution by Winograd's minimal filtering, over the tiles that hold a kept window."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled.availability import Kernels
from nansparse.compiled.multiplication import CHUNKS_PER_THREAD, SHARED_SUMS, panel_shape
from nansparse.compiled.plans import PADDING, geometry_of, three
from nansparse.convolution import Convolution
from nansparse.counts import nan_per_site
from nansparse.plan import WindowPlan

NO_BIAS = np.empty(0, np.float32)


class Tiling(NamedTuple):
    """The tiles of a plan that hold a window to compute, and what all layers with that plan read and write.

    Attributes:
        rows: int32 (N, D, H, W), the row of each site; with P rows, P + 1 for a missing site, and P for one
            whose row is partly NaN.
        goals: int32 (N, d, h, w), the row of each window, more than there are where tiles do not compute it.
        tiles: int64 (T,), numbered as `nansparse.compiled.tiles` says.
        padding: int64 (3,), lower padding.
        direct: int64, rows of the windows that read rows which are partly NaN: they cannot be computed by
            tiles. None where there is no such row.
    """

    rows: np.ndarray
    goals: np.ndarray
    tiles: np.ndarray
    padding: np.ndarray
    direct: Tensor | None = None


def list_tiles(kernels: Kernels, activation: SparseActivation, plan: WindowPlan) -> Tiling:
    """List the tiles that hold a kept window which reads no row that is partly NaN.

    Args:
        kernels: The loops.
        activation: What is convolved.
        plan: Of a 3 x 3 or 3 x 3 x 3 convolution.

    Returns:
        The tiles.
    """
    sites, windows = plan.sites, plan.windows
    rows, direct = sites.row_of.view(sites.batch, *three(sites.grid)), None
    goals = plan.out.row_of.view(plan.out.batch, *three(plan.out.grid))
    if activation.partial:
        rows, direct = _without_partial(kernels, activation, plan, rows)
        left = plan.out.numbers.index_select(0, direct)
        goals = goals.flatten().index_fill(0, left, len(plan.out)).view(goals.shape)
    deep = 2 if len(windows.grid) == 3 else 1
    batch, planes, lines, _ = goals.shape
    counts = torch.empty(batch * -(-planes // deep) * -(-lines // 2), dtype=torch.int64)
    kernels.run(kernels.tiles.count_tiles, goals, len(plan.out), deep, into=(counts,))
    ends = counts.cumsum(0)
    numbers = torch.empty(int(ends[-1]) if len(ends) else 0, dtype=torch.int64)
    kernels.run(kernels.tiles.list_tiles, goals, len(plan.out), deep, ends.sub_(counts), into=(numbers,))
    return Tiling(rows.numpy(), goals.numpy(), numbers.numpy(), geometry_of(windows)[PADDING], direct)


def _without_partial(
    kernels: Kernels, activation: SparseActivation, plan: WindowPlan, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Leave the rows that are partly NaN out of the row of each site, and list the windows that read them."""
    # A result depends on the cells of its own window only, whatever else its tile reads: zeros will do.
    nan = nan_per_site(activation, activation.channels).view(rows.shape)
    partly = (nan > 0) & (nan < activation.channels)
    rows = rows.masked_fill(partly, len(activation.sites))
    counts = torch.empty(plan.out.batch, *three(plan.out.grid), dtype=torch.int32)
    lines = torch.empty(counts.numel() // max(counts.shape[3], 1), dtype=torch.int64)
    kernels.run(
        kernels.windows.count_windows, partly.int(), geometry_of(plan.windows), 1, into=(counts, lines)
    )
    return rows, counts.flatten().index_select(0, plan.out.numbers).nonzero().flatten()


def multiply_in_tiles(
    kernels: Kernels,
    out: Tensor,
    activation: SparseActivation,
    convolution: Convolution,
    plan: WindowPlan,
    tiling: Tiling,
) -> bool:
    """Write the results of all kept windows that do not have to be computed directly.

    Args:
        kernels: The loops.
        out: (M, C_out), written.
        activation: The input.
        convolution: 3 x 3 or 3 x 3 x 3 with one group, stride 1 and dilation 1, not transposed.
        plan: Its plan.
        tiling: Of `list_tiles`.

    Returns:
        Whether all of it can be used. Where infinities meet, be they the input's own or products that left
        float32, a window may get NaN or infinity from a cell that it does not read.
    """
    count = len(tiling.tiles)
    if not count:
        return True
    shape, at_once, panel = panel_shape(kernels, convolution.out_channels)
    some = plan.fills > 0
    summed = some and plan.fills * plan.windows.volume > SHARED_SUMS * len(plan.out)
    bias = NO_BIAS if convolution.bias is None else convolution.bias
    total = kernels.run(
        kernels.winograd.multiply_tiles,
        *(activation.values, activation.places, tiling.rows, len(activation.sites)),
        *(tiling.goals, tiling.tiles, tiling.padding, some, summed),
        *(convolution.taps_last.detach().numpy(), bias),
        *(shape, panel, at_once, min(-(-count // at_once), CHUNKS_PER_THREAD * torch.get_num_threads())),
        into=(out,),
    )
    return math.isfinite(total)
