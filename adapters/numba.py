"""The engine for CPUs where numba is installed: as `gather`, with everything but the product compiled.

The cells of a window, and the mean in place of those that are NaN, are written in one pass, so that windows
that hold NaN cost next to nothing more than others and rows that are partly NaN need no second product.
"""

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled import NUMBA, Kernels, kernels_for
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.plan import Taps, WindowPlan, plan_windows
from nansparse.product import CELLS_PER_CHUNK, product, rounded
from nansparse.scratch import Scratch

# Where more of the windows hold NaN, every row is summed once instead of once a window.
SHARED_SUMS = 0.25


class NumbaEngine(Engine):
    """Gather and fill in a compiled loop, multiply with the fastest library that torch carries."""

    name = "numba"
    libraries = (NUMBA,)
    devices = ("cpu",)

    def __init__(self) -> None:
        """Start without scratch memory."""
        self._scratch = Scratch()

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Reasons; empty if it can.
        """
        if convolution.groups > 1:
            return [f"groups={convolution.groups}: numba runs groups=1"]
        if kernels_for(activation.values) is None:
            problem = NUMBA.problem or "numba found no threads that it can use here"
            fits = activation.device.type == "cpu" and activation.dtype in (torch.float32, torch.float64)
            return [problem if fits else f"{activation.dtype} on {activation.device}: numba runs float on CPUs"]
        if activation.sites.total >= torch.iinfo(torch.int32).max - 2:
            return ["more than 2^31 sites"]
        return []

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute the kept windows.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The output.
        """
        kernels = kernels_for(activation.values)
        assert kernels is not None
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        out = activation.values.new_empty(len(plan.out), convolution.out_channels)
        for taps in plan.taps:
            self._multiply(kernels, out, activation, convolution, plan, taps)
        return SparseActivation(plan.out, out, partial=False)

    def _multiply(
        self,
        kernels: Kernels,
        out: Tensor,
        activation: SparseActivation,
        convolution: Convolution,
        plan: WindowPlan,
        taps: Taps,
    ) -> None:
        """Compute the windows of some taps."""
        windows, reads = taps.table.shape
        if not reads:
            out[taps.outputs] = 0 if convolution.bias is None else convolution.bias
            return
        values, channels = activation.values, activation.channels
        weight = convolution.packed(taps.positions)
        nan_cells, cells = _cells(plan, taps)
        sums, nans = _sums(activation, plan)
        place = activation.places
        width = reads * channels
        step = rounded(min(windows, CELLS_PER_CHUNK // width))
        buffer = self._scratch.take("cells", (step, reads, channels), values)
        for start in range(0, windows, step):
            size = rounded(min(windows - start, step))
            part = buffer[:size]
            kernels.run(
                kernels.cells.fill_cells, values, place, taps.table, start, nan_cells, cells, sums, nans,
                activation.partial, part,
            )
            found = product(part.view(size, width), weight, convolution.bias)[: windows - start]
            if taps.outputs is None:
                out[start : start + step] = found
            else:
                out.index_copy_(0, taps.outputs[start : start + step].long(), found)


def _cells(plan: WindowPlan, taps: Taps) -> tuple[Tensor, Tensor]:
    """NaN cells of the windows, int32, and all their cells, int64, one number if that is the same for all."""
    nan_cells, cells = plan.nan_cells, plan.cells
    if taps.outputs is not None:
        nan_cells = nan_cells[taps.outputs]
        cells = cells if isinstance(cells, int) else cells[taps.outputs]
    return nan_cells.int(), torch.as_tensor(cells).view(-1).long()


def _sums(activation: SparseActivation, plan: WindowPlan) -> tuple[Tensor, Tensor]:
    if activation.partial or len(plan.filled) > SHARED_SUMS * len(plan.out):
        return activation.sums
    return activation.values.new_empty(0), torch.empty(0, dtype=torch.int32)
