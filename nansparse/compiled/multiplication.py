"""The product of kept windows with the weight, means in place of NaN, by a compiled loop."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled.availability import Kernels
from nansparse.compiled.plans import geometry_of, three
from nansparse.convolution import Convolution
from nansparse.plan import Taps, WindowPlan

# Where windows that hold NaN read more often than this times the number of windows, every row is summed once
# instead of once for each of them.
SHARED_SUMS = 2
# Parts of the work for each thread: some have fewer windows with NaN than others.
CHUNKS_PER_THREAD = 4


def multiply_filled(
    kernels: Kernels,
    out: Tensor,
    activation: SparseActivation,
    convolution: Convolution,
    plan: WindowPlan,
    *,
    taps: Taps | None = None,
    which: Tensor | None = None,
    outputs: Tensor | None = None,
) -> bool:
    """Write the results of some windows.

    Args:
        kernels: The loops.
        out: (M or more, C_out), written.
        activation: The input.
        convolution: What to compute, with one group.
        plan: Its plan.
        taps: For a transposed convolution, windows that read the same kernel positions, at least one.
        which: int64, those windows of an ordinary convolution that are wanted; None for all.
        outputs: The rows of `out` where they go; None for all in order.

    Returns:
        Whether it is sure that no result is NaN.
    """
    wanted = which if taps is None else taps.outputs
    nan_cells = plan.nan_cells if wanted is None else plan.nan_cells[wanted]
    cells = plan.cells if isinstance(plan.cells, int) or wanted is None else plan.cells[wanted]
    if not len(nan_cells):
        return True
    positions = list(range(plan.windows.volume)) if taps is None else taps.positions
    shape, at_once, panel = panel_shape(kernels, convolution.out_channels)
    chunks = min(-(-len(nan_cells) // at_once), CHUNKS_PER_THREAD * torch.get_num_threads())
    checks = np.empty(chunks, np.float32)
    kernels.run(
        kernels.products.multiply_windows,
        *(activation.values, activation.places, *_reads(plan, taps, which), len(nan_cells)),
        *(nan_cells.int(), torch.as_tensor(cells).view(-1).long(), *_sums(activation, plan)),
        *(activation.partial, *_packed(kernels, convolution, positions, panel)),
        *(shape, at_once, chunks),
        activation.sites.no_places if outputs is None else outputs.long(),
        into=(out, checks),
    )
    return not math.isnan(checks.sum())


def add_means(
    kernels: Kernels, out: Tensor, activation: SparseActivation, convolution: Convolution, plan: WindowPlan
) -> None:
    """Add what the means in place of missing sites contribute to windows that were multiplied with zeros.

    Args:
        kernels: The loops.
        out: (N * windows, C_out), a row for every window of the grid.
        activation: The input; no row is partly NaN.
        convolution: What to compute, with one group; not transposed.
        plan: Its plan.
    """
    _, rows, numbers, grid, geometry = _reads(plan, None, plan.filled)
    nan_cells = plan.nan_cells.index_select(0, plan.filled).int()
    shares = convolution.taps_last.sum(1).T
    means = (nan_cells, activation.sums[0], shares)
    channels = activation.channels
    kernels.run(kernels.means.add_means, rows, numbers, grid, geometry, channels, *means, into=(out,))


def _reads(plan: WindowPlan, taps: Taps | None, which: Tensor | None) -> tuple[Any, ...]:
    """Say what windows read: by a table, or by their numbers, which spares the table of an ordinary one."""
    windows, sites, out = plan.windows, plan.sites, plan.out
    grid, geometry = np.array(three(windows.out_grid), dtype=np.int64), geometry_of(windows)
    rows = sites.row_of.view(sites.batch, *three(sites.grid))
    if taps is not None:
        return taps.table.int(), rows, sites.no_places, grid, geometry
    numbers = out.places if which is None else out.numbers.index_select(0, which)
    return torch.empty(0, windows.volume, dtype=torch.int32), rows, numbers, grid, geometry


def panel_shape(kernels: Kernels, channels: int) -> tuple[int, int, int]:
    """Find the microkernel that computes the fewest channels in vain.

    Args:
        kernels: The loops.
        channels: Output channels wanted.

    Returns:
        Its number, the windows it takes at once, and the channels of a panel.
    """
    lanes = kernels.microkernel.LANES
    panels = [vectors * lanes for _, vectors in kernels.microkernel.SHAPES]
    number = min(range(len(panels)), key=lambda n: -(-channels // panels[n]) * panels[n])
    return number, kernels.microkernel.SHAPES[number][0], panels[number]


def computed_channels(kernels: Kernels, convolution: Convolution) -> int:
    """Say how many output channels are computed, those among them that nobody wants.

    Args:
        kernels: The loops.
        convolution: What to compute, with one group.

    Returns:
        Their number.
    """
    _, _, panel = panel_shape(kernels, convolution.out_channels)
    return -(-convolution.out_channels // panel) * panel


def _packed(
    kernels: Kernels, convolution: Convolution, positions: list[int], panel: int
) -> tuple[Tensor, Tensor]:
    """Lay weight and bias out in panels of output channels.

    Args:
        kernels: The loops.
        convolution: The convolution.
        positions: Kernel positions wanted.
        panel: Output channels of a panel.

    Returns:
        (panels, positions, C, panel) and (panels * panel,), zeros where there are no more channels.
    """
    taps = convolution.taps_last
    out, channels = taps.shape[:2]
    panels = -(-out // panel)
    weight = taps.new_empty(panels, len(positions), channels, panel)
    # The weight is read as it lies in memory, which `run` would copy.
    kernels.run(kernels.products.pack_weight, taps.detach().numpy(), torch.tensor(positions), into=(weight,))
    bias = taps.new_zeros(panels * panel)
    if convolution.bias is not None:
        bias[:out] = convolution.bias
    return weight, bias


def _sums(activation: SparseActivation, plan: WindowPlan) -> tuple[Tensor, Tensor]:
    if activation.partial or plan.fills * plan.windows.volume > SHARED_SUMS * len(plan.out):
        return activation.sums
    return activation.values.new_empty(0), torch.empty(0, dtype=torch.int32)
