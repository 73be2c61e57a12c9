"""The default engine on CPUs: gather the rows a chunk of windows reads, and multiply by the weight.

Cells lie (window, kernel position, channel), so the weight is packed as (C_out, kernel position x channel).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.engine import Convolution, Engine
from nansparse.fill import add_fill_terms, write_zeroed_rows
from nansparse.plan import Taps, plan_windows
from nansparse.scratch import Scratch

# Cells gathered at a time: enough for the multiplication to run at full speed, little enough to stay in
# cache.
CELLS_PER_CHUNK = 1_200_000


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
        rows = self._scratch.take("rows", (len(activation.rows) + 2, activation.channels), activation.rows)
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
    weight = convolution.taps_last[:, :, taps.positions].transpose(1, 2).flatten(1)
    multiply = _as_pointwise if _pointwise_is_faster(rows) else F.linear
    step = _rounded(min(windows, CELLS_PER_CHUNK // width))
    gathered = scratch.take("cells", (step * reads, rows.shape[1]), rows)
    for start in range(0, windows, step):
        chosen = taps.table[start : start + step]
        torch.index_select(rows, 0, chosen.flatten(), out=gathered[: chosen.numel()])
        size = _rounded(len(chosen))
        gathered[chosen.numel() : size * reads] = 0
        cells = gathered[: size * reads].view(size, width)
        product = multiply(cells, weight, convolution.bias)[: len(chosen)]
        if taps.outputs is None:
            out[start : start + step] = product
        else:
            out.index_copy_(0, taps.outputs[start : start + step].long(), product)


def _rounded(windows: int) -> int:
    """Round a chunk up, so that few sizes occur: oneDNN generates code for each size it meets."""
    grain = 256 if windows > 2048 else 64
    return max(-(-windows // grain), 1) * grain


def _pointwise_is_faster(rows: Tensor) -> bool:
    # On CPUs a 1x1 convolution on channels_last goes through oneDNN, F.linear in float32 through another
    # library at less than half its speed (docs/engines.md).
    return rows.device.type == "cpu" and rows.dtype == torch.float32


def _as_pointwise(cells: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply (m, K) by (C_out, K) as a 1x1 convolution over 16 images of m / 16 x 1.

    With one thread torch hands a 1x1 convolution to oneDNN only from a batch of 16 on.

    Args:
        cells: (m, K), m a multiple of 16.
        weight: (C_out, K).
        bias: (C_out,) or None.

    Returns:
        (m, C_out).
    """
    images = cells.view(16, len(cells) // 16, 1, -1).permute(0, 3, 1, 2)
    out = F.conv2d(images, weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(len(cells), -1)
