"""torch-scatter: sums and maxima over segments, for a gather-multiply-scatter engine and for pooling on rows.

Engine: each kernel position gathers the rows that a chunk of windows meets there and multiplies them by its
slice of the weight; a segment sum then adds the products of each window. Unlike the gather engine it copies
and multiplies no cell that is missing or padding.

Pooling: `segment_peaks` finds the maximum of every pooling window, its place and its ties by a segment
maximum. `nansparse.pooled_rows.pool_rows` takes it in place of its own way; `python -m benchmarks pooling`
times the two.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.fill import add_fill_terms, zeroed_rows
from nansparse.library import Library
from nansparse.plan import Taps, plan_windows
from nansparse.pooled_rows import WindowPeaks, tolerance
from nansparse.product import cells_per_chunk, product, rounded

# Built against the torch that is installed: a wheel kept from another torch would not load.
LIBRARY = Library("torch_scatter", "pip install --no-build-isolation --no-cache-dir torch-scatter==2.1.2")


class TorchScatterEngine(Engine):
    """Gather, multiply, and sum by segments."""

    name = "torch-scatter"
    libraries = (LIBRARY,)

    @property
    def devices(self) -> tuple[str, ...]:
        """The CPU, and CUDA if the library was built with it."""
        if LIBRARY.problem:
            return ()
        return ("cpu", "cuda") if _built_with_cuda() else ("cpu",)

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Reasons; empty if it can.
        """
        if self.problem:
            return [self.problem]
        reasons = []
        device = activation.device.type
        if device not in self.devices:
            reasons.append(f"device {device}: torch-scatter was built for {' and '.join(self.devices)}")
        if convolution.groups > 1:
            reasons.append(f"groups={convolution.groups}: torch-scatter runs groups=1")
        return reasons

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute the kept windows.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The output.
        """
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        rows = zeroed_rows(activation)
        # Half types are summed in float32 and rounded once, as the dense operation does.
        wide = torch.float32 if rows.dtype in (torch.float16, torch.bfloat16) else rows.dtype
        out = rows.new_zeros(len(plan.out), convolution.out_channels, dtype=wide)
        for taps in plan.taps:
            _multiply(out, rows, convolution, taps)
        if convolution.bias is not None:
            out += convolution.bias
        add_fill_terms(out, rows.to(wide), activation, convolution, plan)
        return SparseActivation(plan.out, out.to(rows.dtype), partial=False)


def _built_with_cuda() -> bool:
    LIBRARY.load()
    return int(torch.ops.torch_scatter.cuda_version()) != -1


def _multiply(out: Tensor, rows: Tensor, convolution: Convolution, taps: Taps) -> None:
    """Write conv(x0, W) of the windows of some taps."""
    library = LIBRARY.load()
    weights = [convolution.packed([position]).contiguous() for position in taps.positions]
    step = max(cells_per_chunk(rows.device) // (max(len(weights), 1) * max(convolution.out_channels, 1)), 1)
    for start in range(0, len(taps.table), step):
        table = taps.table[start : start + step]
        real = table < len(rows)
        blocks = [_products(rows, table[:, k][real[:, k]], weight) for k, weight in enumerate(weights)]
        if not blocks:
            return
        order, ends = _by_window(real)
        products = torch.cat(blocks).to(out.dtype).index_select(0, order)
        sums = library.segment_sum_csr(products, ends)
        if taps.outputs is None:
            out[start : start + step] = sums
        else:
            out.index_copy_(0, taps.outputs[start : start + step].long(), sums)


def _products(rows: Tensor, chosen: Tensor, weight: Tensor) -> Tensor:
    """Multiply some rows, in one of few sizes: the library that does it keeps code for each it meets."""
    if not len(chosen):
        return rows.new_zeros(0, len(weight))
    padded = F.pad(chosen, (0, rounded(len(chosen)) - len(chosen)))  # with the first row
    return product(rows.index_select(0, padded), weight)[: len(chosen)]


def _by_window(real: Tensor) -> tuple[Tensor, Tensor]:
    """Sort cells that were listed one kernel position after the other.

    Args:
        real: Bool (m, K), True where a window has a cell.

    Returns:
        int64: for the cells in the order of the windows, their place in the list; and where each window's
        cells begin, (m + 1,).
    """
    places = real.T.flatten().cumsum(0).view(real.shape[1], -1).T - 1
    ends = torch.zeros(len(real) + 1, dtype=torch.int64, device=real.device)
    torch.cumsum(real.sum(1), 0, out=ends[1:])
    return places[real], ends


def segment_peaks(rows: Tensor, table: Tensor, epsilon: float) -> WindowPeaks:
    """Find maxima and ties by segments, as `nansparse.pooled_rows.cell_peaks` does by cells.

    Args:
        rows: (P + 2, C), finite at real cells, -inf at the others and in the last two rows.
        table: (M, K), the row of each cell; P and P + 1 stand for none. Each window has a row.
        epsilon: Relative tolerance of a tie.

    Returns:
        The peaks.
    """
    library = LIBRARY.load()
    there = table < len(rows) - 2
    chosen = table[there]
    cells = rows.index_select(0, chosen)
    ends = torch.zeros(len(table) + 1, dtype=torch.int64, device=rows.device)
    torch.cumsum(there.sum(1), 0, out=ends[1:])
    best, place = library.segment_max_csr(cells, ends)
    # A segment of -inf alone comes out as the lowest finite number, its place undefined.
    empty = best <= torch.finfo(rows.dtype).min
    best = best.masked_fill(empty, -torch.inf)
    position = there.nonzero()[:, 1]
    winner = position[place.clamp(0, max(len(chosen) - 1, 0))].masked_fill(empty, 0)
    highest = library.gather_csr(best, ends)
    tied = (cells - highest).abs() <= tolerance(highest, epsilon)
    count = library.segment_sum_csr(tied.to(torch.int32), ends)

    def mark(unstable: Tensor) -> Tensor:
        remembered = tied & library.gather_csr(unstable.to(torch.uint8), ends).bool()
        # Where windows overlap a row is met more than once.
        met = torch.zeros(len(rows), rows.shape[1], dtype=torch.int32, device=rows.device)
        return met.index_add_(0, chosen, remembered.to(torch.int32)) > 0

    return WindowPeaks(best, winner, count, mark)
