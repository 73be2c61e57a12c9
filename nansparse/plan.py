"""Which windows of a convolution are kept, and which rows each of them reads.

A plan is worked out from integers alone: the NaN cells of every window are counted by a box sum over the
grid, and the kept windows look their cells up in a map of row numbers. It depends on the set of sites and the
geometry only (as long as no row is partly NaN), so it is kept with the set and shared by the layers that keep
that set.
"""

from __future__ import annotations

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
from nansparse.fused import Fused, fused_for
from nansparse.fused import plans as fused_plans
from nansparse.phases import Phase, find_phases, padded_reads
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


class WindowPlan:
    """The kept windows of one convolution (one group) on one activation.

    The sites keep their plans, so a plan must not keep its sites: a cycle would hold the tables, which are
    large, until the garbage collector runs.

    Attributes:
        windows: The geometry.
        nan_cells: NaN cells of each kept window, (M,); whole sites are counted where no row is partly NaN, so
            that one plan serves any number of channels.
        cells: Cells of each kept window in the same unit: an integer, or (M,).
        choices: Where `nansparse.execution` remembers which engine runs a layer with this plan.
    """

    def __init__(self, activation: SparseActivation, windows: Windows, threshold: float) -> None:
        """Count the NaN cells and keep the windows below the threshold.

        Args:
            activation: The input.
            windows: The geometry.
            threshold: NaN share from which on a window is skipped.
        """
        self.windows, self._sites = windows, weakref.ref(activation.sites)
        self.choices: dict[object, object] = {}
        per_site = activation.channels if activation.partial else 1
        self._kernels = None
        most = max(activation.sites.total, activation.sites.batch * math.prod(windows.out_grid))
        if not windows.transposed and most < torch.iinfo(torch.int32).max - 2:
            self._kernels = kernels_for(activation)
            kernels = self._kernels or fused_for(activation)
            if kernels is not None:
                self._list_kept(kernels, activation, per_site, threshold)
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
        self, kernels: Kernels | Fused, activation: SparseActivation, per_site: int, threshold: float
    ) -> None:
        """Do what `__init__` does, by compiled loops or kernels."""
        windows, sites = self.windows, activation.sites
        self.cells = windows.volume * per_site
        limit = fewest_skipped(self.cells, threshold)
        if sites.is_complete and not activation.partial:
            everywhere = Sites(None, sites.batch, windows.out_grid, sites.device)
            self._out = None if windows.out_grid == windows.grid else everywhere
            none = torch.zeros(1, dtype=torch.int32, device=sites.device)
            self.nan_cells = none.expand(everywhere.total)
            return
        if isinstance(kernels, Fused):
            nan = nan_per_site(activation, per_site) if activation.partial else None
            numbers, self.nan_cells = fused_plans.kept_windows(kernels, sites, nan, windows, limit)
            out = Sites(numbers, sites.batch, windows.out_grid, sites.device)
        else:
            nan = nan_per_site(activation, per_site)
            out, self.nan_cells = kept_windows(kernels, nan, windows, limit)
        same = windows.out_grid == windows.grid and len(out) == len(sites)
        same = same and (sites.is_complete or torch.equal(out.numbers, sites.numbers))
        self._out = None if same else out

    @classmethod
    def of_chosen(cls, activation: SparseActivation, windows: Windows, out: Sites) -> WindowPlan:
        """Plan to compute some windows of an activation that lacks no site and no cell.

        Args:
            activation: The input.
            windows: The geometry; not transposed.
            out: The windows wanted.

        Returns:
            The plan.
        """
        plan = cls.__new__(cls)
        plan.windows, plan._sites, plan.choices = windows, weakref.ref(activation.sites), {}
        small = activation.sites.total < torch.iinfo(torch.int32).max - 2
        plan._kernels = kernels_for(activation) if small else None
        plan._out, plan.cells = out, windows.volume
        plan.nan_cells = torch.zeros(1, dtype=torch.int32, device=out.device).expand(len(out))
        return plan

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
    def fills(self) -> int:
        """How many of the kept windows hold NaN cells."""
        return int(self.nan_cells.count_nonzero())

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
        phases = find_phases(self.windows)
        return [self._read(phase, alone=len(phases) == 1) for phase in phases]

    def _read(self, phase: Phase, *, alone: bool) -> Taps:
        rows = self.sites.row_of
        lattice = (slice(None), *(slice(s, None, t) for s, t in zip(phase.starts, phase.step, strict=True)))
        keep = self.keep[lattice]
        pads, strides, base = padded_reads(phase, self.windows.grid, keep.shape[1:], rows)
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
