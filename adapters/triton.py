"""The engine for GPUs: products of windows straight from the rows they read, compiled by Triton.

One launch computes a layer, the mean in place of NaN included; nothing is gathered and no table is written.
Triton comes with torch's builds for GPUs, so there is nothing to install.
"""

import math

import torch

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.errors import EngineError
from nansparse.fused import TRITON, fused_devices, fused_for, fused_problem
from nansparse.fused.availability import DTYPES
from nansparse.fused.launch import multiply_windows
from nansparse.plan import plan_windows
from nansparse.workload import Workload


class TritonEngine(Engine):
    """Look up, fill and multiply in one launch."""

    name = "triton"
    libraries = (TRITON,)

    @property
    def devices(self) -> tuple[str, ...]:
        """The device types it runs on; CPUs where a user has Triton interpret kernels."""
        return fused_devices()

    @property
    def problem(self) -> str:
        """Why it can run nothing here, with the remedy; empty if it can."""
        return fused_problem()

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Reasons; empty if it can.
        """
        if convolution.groups > 1:
            return [f"groups={convolution.groups}: triton runs groups=1"]
        if activation.dtype not in DTYPES:
            return [f"{activation.dtype}: triton runs float32, float16 and bfloat16"]
        if self.problem:
            return [self.problem]
        if fused_for(activation) is None:
            return [f"device {activation.device.type}: triton runs on GPUs"]
        windows = activation.sites.batch * math.prod(convolution.windows.out_grid)
        if max(activation.sites.total, windows) >= torch.iinfo(torch.int32).max - 2:
            return ["more than 2^31 sites"]
        return []

    def workload(self, activation: SparseActivation, convolution: Convolution) -> Workload:
        """Say what there is to do: nothing is copied.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The amounts.
        """
        return super().workload(activation, convolution)._replace(cells=0)

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute the kept windows.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The output.

        Raises:
            EngineError: If Triton cannot run here.
        """
        fused = fused_for(activation)
        if fused is None:
            raise EngineError(self.problem or "triton runs on GPUs")
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        out = multiply_windows(fused, activation, convolution, plan)
        return SparseActivation(plan.out, out, partial=False)
