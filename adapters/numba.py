"""The engine for CPUs where numba is installed: products of windows straight from the rows they read.

Nothing is gathered, and the mean stands in place of NaN from the start, so that windows that hold NaN cost
a little more than others, and rows that are partly NaN need no second product.
"""

import torch

from nansparse.activation import SparseActivation
from nansparse.compiled import NUMBA, Kernels, kernels_for, kernels_problem
from nansparse.compiled.multiplication import computed_channels, multiply_filled
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.errors import EngineError
from nansparse.plan import plan_windows
from nansparse.pool import empty_rows
from nansparse.workload import Workload


class NumbaEngine(Engine):
    """Look up, fill and multiply in one compiled loop."""

    name = "numba"
    libraries = (NUMBA,)
    devices = ("cpu",)

    @property
    def problem(self) -> str:
        """Why it can run nothing here, with the remedy; empty if it can."""
        return kernels_problem()

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Reasons; empty if it can.
        """
        if convolution.groups > 1:
            return [f"groups={convolution.groups}: {self.name} runs groups=1"]
        if activation.device.type != "cpu" or activation.dtype != torch.float32:
            return [f"{activation.dtype} on {activation.device}: {self.name} runs float32 on CPUs"]
        if kernels_for(activation.values) is None:
            return [self.problem]
        if activation.sites.total >= torch.iinfo(torch.int32).max - 2:
            return ["more than 2^31 sites"]
        return []

    def workload(self, activation: SparseActivation, convolution: Convolution) -> Workload:
        """Say what there is to do: only rows that are partly NaN, and the weight, are copied.

        To fill a window, the sums of what it reads are looked up and its mean is spread over its outputs,
        one by one, as cells are that are copied.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The amounts.
        """
        work = super().workload(activation, convolution)
        kernels = kernels_for(activation.values)
        out = convolution.out_channels if kernels is None else computed_channels(kernels, convolution)
        per_read = activation.channels * out
        rows = int(activation.nans.count_nonzero()) if activation.partial else 0
        mended = work.reads * activation.channels * rows / max(len(activation.sites), 1)
        volume = convolution.windows.volume
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        return work._replace(
            macs=work.reads * per_read,
            cells=mended + plan.fills * volume * convolution.out_channels,
            writes=work.writes + volume * per_read,
        )

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute the kept windows.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The output.
        """
        kernels = self._kernels(activation)
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        out = empty_rows(activation.values, len(plan.out), convolution.out_channels)
        common = (kernels, out, activation, convolution, plan)
        if not convolution.windows.transposed:
            sure = multiply_filled(*common)
            return SparseActivation(plan.out, out, partial=False, sure=sure)
        for taps in plan.taps:
            if taps.positions:
                multiply_filled(*common, taps=taps, outputs=taps.outputs)
            else:
                out[taps.outputs] = 0 if convolution.bias is None else convolution.bias
        return SparseActivation(plan.out, out, partial=False)

    def _kernels(self, activation: SparseActivation) -> Kernels:
        kernels = kernels_for(activation)
        if kernels is None:
            raise EngineError(self.problem)
        return kernels
