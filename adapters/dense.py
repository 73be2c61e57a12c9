"""The dense engine: an ordinary convolution over the whole grid, then the mask.

Always available, the fallback.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import LEFT_ON_GRID, SparseActivation
from nansparse.compiled import kernels_for
from nansparse.compiled.multiplication import add_means, multiply_filled
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.fill import add_fill_terms
from nansparse.plan import WindowPlan, plan_windows
from nansparse.pool import make_room
from nansparse.scratch import Scratch
from nansparse.strides import as_image, as_rows
from nansparse.threshold import is_skipped
from nansparse.workload import Workload, padded

# Where at most this share of the windows holds NaN, or rows are partly NaN, compiled loops compute them once
# more; else they add what the mean contributes, for which every row is summed.
FEW_FILLS = 0.05


class DenseEngine(Engine):
    """Masked dense convolution: every option, dtype and device of the PyTorch operation."""

    name = "dense"

    def __init__(self) -> None:
        """Start without scratch memory."""
        self._scratch = Scratch()

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Never a reason.
        """
        del activation, convolution
        return []

    def workload(self, activation: SparseActivation, convolution: Convolution) -> Workload:
        """Say what there is to do.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The amounts.
        """
        windows, sites = convolution.windows, activation.sites
        plan = plan_windows(activation, windows, convolution.threshold)
        kept = len(plan.out)
        per_window = windows.volume * padded(activation.channels, convolution.out_channels)
        total = sites.batch * math.prod(windows.out_grid)
        copied = sites.total + len(sites) if not activation.laid_out else sites.total - len(sites)
        copied = sites.total if activation.partial and activation.laid_out else copied
        again = _computed_again(activation, plan)
        return Workload(
            macs=(total + (plan.fills if again else 0)) * per_window,
            reads=0 if again else plan.fills * windows.volume,
            cells=copied * activation.channels,
            writes=(total + (kept if kept < LEFT_ON_GRID * total else 0)) * convolution.out_channels,
            sites=sites.total,
        )

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute all windows and keep those below the threshold.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The output.
        """
        if convolution.groups > 1:
            return _run_grouped(activation, convolution)
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        if activation.device.type == "cpu":
            grids = activation.sites.total * activation.channels, plan.out.total * convolution.out_channels
            make_room(sum(grids))
        zeroed = self._zeroed_grid(activation)
        image = as_image(zeroed, activation.sites.batch, activation.sites.grid)
        out = as_rows(_convolve(image, convolution.weight, convolution.bias, convolution))
        if activation.partial or not activation.sites.is_complete:
            _fill(out, zeroed, activation, convolution, plan)
        if len(plan.out) < LEFT_ON_GRID * plan.out.total:
            return SparseActivation(plan.out, out.index_select(0, plan.out.numbers), partial=False)
        return SparseActivation(plan.out, out, partial=False, laid_out=True)

    def _zeroed_grid(self, activation: SparseActivation) -> Tensor:
        """Give the rows of the whole grid, with zeros at missing sites and for NaN."""
        sites, values = activation.sites, activation.values
        if not activation.partial and activation.laid_out:
            if sites.is_complete:
                return values
            if not values.is_inference() or torch.is_inference_mode_enabled():
                # Rows of missing sites mean nothing to anyone: no copy is needed.
                return values.index_fill_(0, sites.missing, 0.0)
        grid = self._scratch.take("grid", (sites.total, activation.channels), values)
        at_once = kernels_for(values) is not None
        mended = activation.partial and at_once
        sites.spread(values, 0.0, laid_out=activation.laid_out, mended=mended, out=grid)
        if activation.partial and not at_once:
            # Infinities are the network's own and stay.
            holes, mask = activation.holes
            numbers = sites.numbers.index_select(0, holes)
            grid[numbers] = grid.index_select(0, numbers).masked_fill_(mask, 0.0)
        return grid


def _fill(
    out: Tensor, zeroed: Tensor, activation: SparseActivation, convolution: Convolution, plan: WindowPlan
) -> None:
    """Add what the means in place of NaN contribute to windows that were multiplied with zeros there."""
    kernels = None if convolution.windows.transposed else kernels_for(out)
    if kernels is None:
        add_fill_terms(out, zeroed, activation, convolution, plan, laid_out=True)
    elif plan.fills and not _computed_again(activation, plan):
        add_means(kernels, out, activation, convolution, plan)
    elif plan.fills:
        which = plan.filled
        places = which if plan.out.is_complete else plan.out.numbers.index_select(0, which)
        multiply_filled(kernels, out, activation, convolution, plan, which=which, outputs=places)


def _computed_again(activation: SparseActivation, plan: WindowPlan) -> bool:
    """Say whether the windows that hold NaN are computed once more."""
    return activation.partial or plan.fills <= FEW_FILLS * len(plan.out)


def _run_grouped(activation: SparseActivation, convolution: Convolution) -> SparseActivation:
    """Apply equation 4 of `nansparse.fill` to dense tensors, with counts and means per group."""
    windows, groups = convolution.windows, convolution.groups
    x = activation.to_dense()
    nan = x.isnan()
    wide = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    zeroed = x.masked_fill(nan, 0.0)
    ones = torch.ones(1, 1, *windows.kernel, device=x.device, dtype=torch.float64)
    counting = Convolution(ones, None, windows, 1, convolution.threshold)
    per_group = (x.shape[0] * groups, 1, *windows.grid)
    counts = nan.unflatten(1, (groups, -1)).sum(2, dtype=torch.float64).reshape(per_group)
    sums = zeroed.unflatten(1, (groups, -1)).sum(2, dtype=torch.float64).reshape(per_group)
    shape = (x.shape[0], groups, *windows.out_grid)
    nan_cells = _convolve(counts, counting.weight, None, counting).round().reshape(shape)
    totals = _convolve(sums, counting.weight, None, counting).reshape(shape)
    cells = (windows.cells() * (x.shape[1] // groups)).to(x.device)
    keep = ~is_skipped(nan_cells, cells, convolution.threshold)
    mean = (totals / (cells - nan_cells).clamp(min=1)).to(wide)
    repeats = convolution.out_channels // groups
    share = _convolve(nan.to(x.dtype), convolution.weight, None, convolution).to(wide)
    values = _convolve(zeroed, convolution.weight, convolution.bias, convolution).to(wide)
    values += share * mean.repeat_interleave(repeats, 1)
    return _masked(values.to(x.dtype), keep)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, convolution: Convolution) -> Tensor:
    """Call the torch operation behind a convolution's geometry."""
    windows = convolution.windows
    flat = len(windows.grid) == 2
    steps, pads, apart = list(windows.stride), list(windows.padding), list(windows.dilation)
    if windows.transposed:
        extra = [o - windows.full_size(axis) for axis, o in enumerate(windows.out_grid)]
        spread = F.conv_transpose2d if flat else F.conv_transpose3d
        return spread(x, weight, bias, steps, pads, extra, convolution.groups, apart)
    if any(windows.further_behind):
        # Uneven padding, as "same" gives with an even kernel. Where a stride leaves rows over, less is needed
        # behind than before, and torch leaves them over just so.
        x = F.pad(x, [side for more in reversed(windows.further_behind) for side in (0, more)])
    return (F.conv2d if flat else F.conv3d)(x, weight, bias, steps, pads, apart, convolution.groups)


def _masked(values: Tensor, keep: Tensor) -> SparseActivation:
    """Drop the skipped windows of a dense convolution.

    Args:
        values: (N, C, *out) of a convolution, any value where a window is skipped.
        keep: Bool (N, groups, *out), True at the kept windows of each group.

    Returns:
        The sparse form, with no NaN other than at the skipped windows.
    """
    repeats = values.shape[1] // keep.shape[1]
    mask = keep.repeat_interleave(repeats, 1) if keep.shape[1] > 1 else keep
    return SparseActivation.from_dense(values.masked_fill(~mask, torch.nan))
