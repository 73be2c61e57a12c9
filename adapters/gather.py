"""The default engine on CPUs: gather the rows a chunk of windows reads, and multiply by the weight.

Cells lie (window, kernel position, channel), so the weight is packed as (C_out, kernel position x channel).
"""

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.fill import add_fill_terms, write_zeroed_rows
from nansparse.plan import Taps, plan_windows
from nansparse.product import cells_per_chunk, product, rounded
from nansparse.scratch import Scratch


class GatherEngine(Engine):
    """Gather and multiply with plain torch, on any device."""

    name = "gather"

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
            return [f"groups={convolution.groups}: gather runs groups=1"]
        return []

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute the kept windows.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The output.
        """
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        rows = self._scratch.take("rows", (len(activation.sites) + 2, activation.channels), activation.values)
        write_zeroed_rows(activation, rows)
        out = rows.new_empty(len(plan.out), convolution.out_channels)
        for taps in plan.taps:
            _multiply(out, rows, convolution, taps, self._scratch)
        add_fill_terms(out, rows, activation, convolution, plan)
        return SparseActivation(plan.out, out, partial=False)


def _multiply(out: Tensor, rows: Tensor, convolution: Convolution, taps: Taps, scratch: Scratch) -> None:
    """Write conv(x0, W) and the bias of the windows of some taps."""
    windows, reads = taps.table.shape
    if not reads:
        out[taps.outputs] = 0 if convolution.bias is None else convolution.bias
        return
    width = reads * rows.shape[1]
    weight = convolution.packed(taps.positions)
    step = rounded(min(windows, cells_per_chunk(rows.device) // width))
    gathered = scratch.take("cells", (step * reads, rows.shape[1]), rows)
    for start in range(0, windows, step):
        chosen = taps.table[start : start + step]
        torch.index_select(rows, 0, chosen.flatten(), out=gathered[: chosen.numel()])
        size = rounded(len(chosen))
        gathered[chosen.numel() : size * reads] = 0
        cells = gathered[: size * reads].view(size, width)
        values = product(cells, weight, convolution.bias)[: len(chosen)]
        if taps.outputs is None:
            out[start : start + step] = values
        else:
            out.index_copy_(0, taps.outputs[start : start + step].long(), values)
