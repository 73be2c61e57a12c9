"""The product of kept windows with the weight, means in place of NaN."""

from collections.abc import Iterator

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled.availability import Kernels
from nansparse.convolution import Convolution
from nansparse.plan import Taps, WindowPlan
from nansparse.product import CELLS_PER_CHUNK, product, rounded
from nansparse.scratch import Scratch

# Where more of the windows hold NaN, every row is summed once instead of once a window.
SHARED_SUMS = 0.25


def multiply_filled(
    kernels: Kernels,
    out: Tensor,
    activation: SparseActivation,
    convolution: Convolution,
    plan: WindowPlan,
    taps: Taps,
    scratch: Scratch,
    *,
    which: Tensor | None = None,
    outputs: Tensor | None,
) -> None:
    """Write the results of some windows.

    Args:
        kernels: The loops.
        out: (M or more, C_out), written.
        activation: The input.
        convolution: What to compute, with one group.
        plan: Its plan.
        taps: Windows of the plan, with at least one kernel position.
        scratch: Memory for a chunk of cells.
        which: int64, the rows of the table of taps that are wanted; None for all.
        outputs: The rows of `out` where they go; None for all in order.
    """
    windows = len(taps.table) if which is None else len(which)
    weight = convolution.packed(taps.positions)
    for start, cells in _filled_cells(kernels, activation, plan, taps, scratch, which):
        found = product(cells, weight, convolution.bias)[: windows - start]
        if outputs is None:
            out[start : start + len(found)] = found
        else:
            out.index_copy_(0, outputs[start : start + len(found)].long(), found)


def _filled_cells(
    kernels: Kernels,
    activation: SparseActivation,
    plan: WindowPlan,
    taps: Taps,
    scratch: Scratch,
    which: Tensor | None,
) -> Iterator[tuple[int, Tensor]]:
    """Write the cells of windows, chunk by chunk.

    Args:
        kernels: The loops.
        activation: The input.
        plan: Its plan.
        taps: Windows of the plan, with at least one kernel position.
        scratch: Memory for a chunk.
        which: int64, the rows of the table of taps that are wanted; None for all.

    Yields:
        The number of the chunk's first window among those wanted, and its cells, (m, positions * C), valid
        until the next chunk: zeros behind the last window. Chunks may overlap.
    """
    windows = len(taps.table) if which is None else len(which)
    reads, channels = taps.table.shape[1], activation.channels
    step = rounded(min(windows, CELLS_PER_CHUNK // (reads * channels)))
    if which is None and step <= windows and _reads_its_own_rows(activation, plan):
        # The last chunk begins earlier, so that the product meets one size only.
        for start in (*range(0, windows - step, step), windows - step):
            yield start, activation.values[start : start + step]
        return
    nan_cells, cells = _cells(plan, taps)
    sums, nans = _sums(activation, plan)
    numbers = activation.sites.no_places if which is None else which
    buffer = scratch.take("cells", (step, reads, channels), activation.values)
    fixed = (activation.values, activation.places, taps.table, numbers)
    for start in range(0, windows, step):
        part = buffer[: rounded(min(windows - start, step))]
        numbers_of_nan = (nan_cells, cells, sums, nans, activation.partial)
        kernels.run(kernels.cells.fill_cells, *fixed, start, *numbers_of_nan, part)
        yield start, part.view(len(part), reads * channels)


def _reads_its_own_rows(activation: SparseActivation, plan: WindowPlan) -> bool:
    """Whether each window is one site of the input, in the same order, without NaN."""
    windows, held = plan.windows, activation.values
    own = plan.out is activation.sites and windows.volume == 1 and not any(windows.padding)
    return own and not activation.partial and len(held) == len(plan.out) and held.is_contiguous()


def _cells(plan: WindowPlan, taps: Taps) -> tuple[Tensor, Tensor]:
    """NaN cells of the windows, int32, and all their cells, int64, one number if that is the same for all."""
    nan_cells, cells = plan.nan_cells, plan.cells
    if taps.outputs is not None:
        nan_cells = nan_cells[taps.outputs]
        cells = cells if isinstance(cells, int) else cells[taps.outputs]
    return nan_cells.int(), torch.as_tensor(cells).view(-1).long()


def _sums(activation: SparseActivation, plan: WindowPlan) -> tuple[Tensor, Tensor]:
    if activation.partial or plan.fills > SHARED_SUMS * len(plan.out):
        return activation.sums
    return activation.values.new_empty(0), torch.empty(0, dtype=torch.int32)
