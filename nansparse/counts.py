"""NaN cells of every window of a convolution, as a box sum over the grid."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.windows import Windows


def count_nan(activation: SparseActivation, per_site: int, windows: Windows) -> Tensor:
    """Count the NaN cells of every window.

    Args:
        activation: The input.
        per_site: What a missing site counts: its channels if rows are partly NaN, else 1.
        windows: The geometry.

    Returns:
        (N, *out_grid), integers.
    """
    sites = activation.sites
    most = windows.volume * per_site
    dtype = next(
        d for d in (torch.uint8, torch.int16, torch.int32, torch.int64) if most <= torch.iinfo(d).max
    )
    nan = nan_per_site(activation, per_site).to(dtype)
    if windows.transposed:
        spread = F.conv_transpose2d if len(sites.grid) == 2 else F.conv_transpose3d
        extra = [o - windows.full_size(a) for a, o in enumerate(windows.out_grid)]
        ones = torch.ones(1, 1, *windows.kernel, dtype=torch.float64, device=sites.device)
        options = (list(windows.stride), list(windows.padding), extra, 1, list(windows.dilation))
        return spread(nan[:, None].double(), ones, None, *options)[:, 0].round().long()
    for axis in range(len(sites.grid)):
        nan = _box_sum(nan, axis, windows)
    return nan


def nan_per_site(activation: SparseActivation, per_site: int) -> Tensor:
    """Count the NaN cells of every site.

    Args:
        activation: The input.
        per_site: What a missing site counts.

    Returns:
        int32 (N, *grid).
    """
    sites = activation.sites
    if not activation.partial:
        nans = torch.full((sites.total,), per_site, dtype=torch.int32, device=sites.device)
        return nans.index_fill_(0, sites.numbers, 0).view(sites.batch, *sites.grid)
    nans = activation.nans
    if not sites.is_complete:
        everywhere = torch.full((sites.total,), per_site, dtype=torch.int32, device=sites.device)
        nans = everywhere.index_copy_(0, sites.numbers, nans)
    return nans.view(sites.batch, *sites.grid)


def _box_sum(counts: Tensor, axis: int, windows: Windows) -> Tensor:
    """Sum the kernel positions along one axis."""
    out = windows.out_grid[axis]
    step, low, apart = windows.stride[axis], windows.padding[axis], windows.dilation[axis]
    if windows.kernel[axis] == 1 and step == 1 and low == 0:
        return counts
    span = (out - 1) * step + 1
    # Less than none where a stride leaves cells over.
    high = max(windows.high_padding(axis), 0)
    behind = counts.dim() - 2 - axis
    padded = F.pad(counts, [0, 0] * behind + [low, high])
    total: Tensor | None = None
    for k in range(windows.kernel[axis]):
        part = padded.narrow(axis + 1, k * apart, span)
        part = part if step == 1 else part[(slice(None),) * (axis + 1) + (slice(None, None, step),)]
        total = part.clone() if total is None else total.add_(part)
    return total if total is not None else padded
