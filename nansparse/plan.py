"""Which windows of a convolution are kept, and which rows each of them reads.

A plan is worked out from integers alone: the NaN cells of every window are counted by a box sum over the
grid, and the kept windows look their cells up in a map of row numbers. It depends on the set of sites and the
geometry only (as long as no row is partly NaN), so it is kept with the set and shared by the layers that keep
that set.
"""

import itertools
import math
import weakref
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled import Kernels, kernels_for
from nansparse.compiled.plans import kept_windows, rows_read
from nansparse.counts import count_nan, nan_per_site
from nansparse.errors import EngineError
from nansparse.sites import Sites
from nansparse.threshold import fewest_skipped, is_skipped
from nansparse.windows import Windows

# More than a dense block's geometries; older plans of the same set are dropped.
PLANS_KEPT = 4


@dataclass(frozen=True)
class Taps:
    """The rows that some kept windows read through some kernel positions.

    Attributes:
        positions: The kernel positions, flat, row-major.
        outputs: Which kept windows these are; None for all in order.
        table: (m, len(positions)) row numbers; P stands for padding and P + 1 for a missing site.
    """

    positions: list[int]
    outputs: Tensor | None
    table: Tensor


@dataclass(frozen=True)
class _Phase:
    """Outputs start, start + step, ... that share kernel positions.

    Cell = scale * t + offset along each axis.
    """

    starts: tuple[int, ...]
    step: tuple[int, ...]
    scale: tuple[int, ...]
    positions: list[int]
    offsets: list[tuple[int, ...]]


class WindowPlan:
    """The kept windows of one convolution (one group) on one activation.

    The sites keep their plans, so a plan must not keep its sites: a cycle would hold the tables, which are
    large, until the garbage collector runs.

    Attributes:
        windows: The geometry.
        nan_cells: NaN cells of each kept window, (M,); whole sites are counted where no row is partly NaN, so
            that one plan serves any number of channels.
        cells: Cells of each kept window in the same unit: an integer, or (M,).
    """

    def __init__(self, activation: SparseActivation, windows: Windows, threshold: float) -> None:
        """Count the NaN cells and keep the windows below the threshold.

        Args:
            activation: The input.
            windows: The geometry.
            threshold: NaN share from which on a window is skipped.
        """
        self.windows, self._sites = windows, weakref.ref(activation.sites)
        per_site = activation.channels if activation.partial else 1
        self._kernels = None
        if not windows.transposed and activation.sites.total < torch.iinfo(torch.int32).max - 2:
            self._kernels = kernels_for(activation.values)
        if self._kernels is not None:
            self._list_kept(self._kernels, activation, per_site, threshold)
            return
        counts = count_nan(activation, per_site, windows)
        if windows.transposed:
            cells = (windows.cells().to(counts.device) * per_site).expand(counts.shape)
            keep = ~is_skipped(counts, cells, threshold)
        else:
            size = windows.volume * per_site
            keep = counts < fewest_skipped(size, threshold)
        same_grid = windows.out_grid == windows.grid
        everything = Sites(None, self.sites.batch, windows.out_grid, self.sites.device)
        out = (self.sites if same_grid else everything).where(keep)
        self._out = None if out is self.sites else out
        self.nan_cells = counts.flatten() if out.is_complete else counts.flatten()[out.numbers]
        self.cells: int | Tensor = cells.flatten()[out.numbers] if windows.transposed else size

    def _list_kept(
        self, kernels: Kernels, activation: SparseActivation, per_site: int, threshold: float
    ) -> None:
        """Do what `__init__` does, by compiled loops."""
        windows, sites = self.windows, activation.sites
        self.cells = windows.volume * per_site
        limit = fewest_skipped(self.cells, threshold)
        numbers, self.nan_cells = kept_windows(kernels, nan_per_site(activation, per_site), windows, limit)
        same = windows.out_grid == windows.grid and len(numbers) == len(sites)
        if same and (sites.is_complete or torch.equal(numbers, sites.numbers)):
            self._out = None
        else:
            self._out = Sites(numbers, sites.batch, windows.out_grid, sites.device)

    @property
    def keep(self) -> Tensor:
        """Bool (N, *out_grid), True at the kept windows."""
        return self.out.mask

    @property
    def sites(self) -> Sites:
        """The input's sites; whoever uses the plan holds them."""
        sites = self._sites()
        if sites is None:
            raise EngineError("a window plan was used after its sites were gone")
        return sites

    @property
    def out(self) -> Sites:
        """The output's sites, one a kept window."""
        return self.sites if self._out is None else self._out

    @cached_property
    def filled(self) -> Tensor:
        """The kept windows that hold NaN cells and need the mean, as row numbers of `out`."""
        return self.nan_cells.nonzero().flatten()

    @cached_property
    def taps(self) -> list[Taps]:
        """What the kept windows read, kernel positions that meet the same outputs together."""
        if self._kernels is not None:
            table = rows_read(self._kernels, self.sites, self.out, self.windows)
            return [Taps(list(range(self.windows.volume)), None, table)]
        phases = _phases(self.windows)
        return [self._read(phase, alone=len(phases) == 1) for phase in phases]

    def _read(self, phase: _Phase, *, alone: bool) -> Taps:
        rows = self.sites.row_of
        lattice = (slice(None), *(slice(s, None, t) for s, t in zip(phase.starts, phase.step, strict=True)))
        keep = self.keep[lattice]
        pads, strides, base = _padded_reads(phase, self.windows.grid, keep.shape[1:], rows)
        flat = F.pad(rows, pads, value=len(self.sites)).flatten()
        shift = [sum(o * s for o, s in zip(offset, strides, strict=True)) for offset in phase.offsets]
        chosen = base[keep]
        reach = torch.tensor(shift, dtype=chosen.dtype, device=chosen.device)
        table = flat.index_select(0, (chosen[:, None] + reach).flatten()).view(len(chosen), len(shift))
        outputs = None if alone else self.out.row_of[lattice][keep]
        return Taps(phase.positions, outputs, table)


def plan_windows(activation: SparseActivation, windows: Windows, threshold: float) -> WindowPlan:
    """Plan a convolution with one group, or find the plan made earlier.

    Args:
        activation: The input.
        windows: The geometry.
        threshold: NaN share from which on a window is skipped.

    Returns:
        The plan.
    """
    known, key = activation.plans, (windows, threshold)
    plan = known.get(key)
    if not isinstance(plan, WindowPlan):
        plan = WindowPlan(activation, windows, threshold)
        known.pop(next(iter(known))) if len(known) >= PLANS_KEPT else None
        known[key] = plan
    return plan


def _phases(windows: Windows) -> list[_Phase]:
    """Split the outputs by the kernel positions they use; an ordinary convolution has one phase."""
    along = [_axis_phases(windows, axis) for axis in range(len(windows.grid))]
    phases = []
    for combination in itertools.product(*along):
        starts, kept, offsets = zip(*combination, strict=True)
        if any(start >= out for start, out in zip(starts, windows.out_grid, strict=True)):
            continue
        numbers = torch.arange(windows.volume).view(windows.kernel)
        for axis, chosen in enumerate(kept):
            numbers = numbers.index_select(axis, torch.tensor(chosen, dtype=torch.int64))
        ones = (1,) * len(windows.grid)
        step, scale = (windows.stride, ones) if windows.transposed else (ones, windows.stride)
        phases.append(
            _Phase(starts, step, scale, numbers.flatten().tolist(), list(itertools.product(*offsets)))
        )
    return phases


def _axis_phases(windows: Windows, axis: int) -> list[tuple[int, list[int], list[int]]]:
    """List (first output, kernel positions, cell offsets) along one axis."""
    step, low, apart = windows.stride[axis], windows.padding[axis], windows.dilation[axis]
    positions = list(range(windows.kernel[axis]))
    if not windows.transposed:
        return [(0, positions, [k * apart - low for k in positions])]
    phases = []
    for start in range(step):
        kept = [k for k in positions if (start + low - k * apart) % step == 0]
        phases.append((start, kept, [(start + low - k * apart) // step for k in kept]))
    return phases


def _padded_reads(
    phase: _Phase, grid: tuple[int, ...], counts: tuple[int, ...], rows: Tensor
) -> tuple[list[int], list[int], Tensor]:
    """Pad the map of rows so that every read lands in it.

    Args:
        phase: The outputs and their offsets.
        grid: The input grid.
        counts: Outputs along each axis.
        rows: (N, *grid) map; gives batch, dtype and device.

    Returns:
        The padding as `F.pad` wants it, the padded map's strides, and the flat number that each output reads
        at offset 0, (N, *counts).
    """
    pads: list[int] = []
    sizes, lows = [], []
    for axis, size in enumerate(grid):
        reach = [offset[axis] for offset in phase.offsets] or [0]
        low = max(0, -min(reach))
        high = max(0, (counts[axis] - 1) * phase.scale[axis] + max(0, *reach, 0) - size + 1)
        pads[:0] = [low, high]
        sizes.append(low + size + high)
        lows.append(low)
    total = rows.shape[0] * math.prod(sizes)
    dtype = rows.dtype if total < torch.iinfo(rows.dtype).max else torch.int64
    base = torch.arange(total, dtype=dtype, device=rows.device)
    base = base.view(rows.shape[0], *sizes)
    for axis, low in enumerate(lows):
        span = (counts[axis] - 1) * phase.scale[axis] + 1
        base = base.narrow(axis + 1, low, span)
        base = base[(slice(None),) * (axis + 1) + (slice(None, None, phase.scale[axis]),)]
    return pads, [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))], base
