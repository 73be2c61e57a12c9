"""Winograd's minimal filtering for CPUs where numba is installed: fewer multiplications than there are cells.

Four windows of a 3 x 3 convolution that lie in a square take 16 multiplications in place of 36, eight of a
3 x 3 x 3 convolution that lie in a cube 64 in place of 216 (A. Lavin and S. Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016). The squares that hold a kept window are computed, the others left
out. A result depends on the cells of its own window only, so that the windows which read a row that is partly
NaN can be left to the direct product. Rounding errors are those of float32, but relative to the largest cell
of a window, where a direct product has them relative to each product (docs/engines.md).
"""

import math
import weakref

import torch
from nansparse.adapters.numba import NumbaEngine

from nansparse.activation import SparseActivation
from nansparse.compiled import Kernels
from nansparse.compiled.filtering import Tiling, list_tiles, multiply_in_tiles
from nansparse.compiled.multiplication import computed_channels, multiply_filled
from nansparse.convolution import Convolution
from nansparse.plan import WindowPlan, plan_windows
from nansparse.pool import empty_rows
from nansparse.windows import Windows
from nansparse.workload import Workload

# Windows of a tile, and its transformed cells, by the number of axes.
RESULTS, CELLS = {2: 4, 3: 8}, {2: 16, 3: 64}


class WinogradEngine(NumbaEngine):
    """Transform, multiply and transform back in one compiled loop."""

    name = "winograd"

    def __init__(self) -> None:
        """Start without tiles."""
        # Layers that keep a set of sites share its plan, and with it the tiles, which go with the plan.
        self._tilings: weakref.WeakKeyDictionary[WindowPlan, Tiling] = weakref.WeakKeyDictionary()

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Reasons; empty if it can.
        """
        if not _is_plain(convolution.windows):
            return ["winograd runs 3 x 3 and 3 x 3 x 3 kernels with stride 1 and dilation 1"]
        windows = activation.sites.batch * math.prod(convolution.windows.out_grid)
        if windows >= torch.iinfo(torch.int32).max - 2:
            return ["more than 2^31 windows"]
        return super().unsupported_reasons(activation, convolution) or _mostly_partial(
            activation, convolution
        )

    def least_workload(self, kept: int, activation: SparseActivation, convolution: Convolution) -> Workload:
        """Say what there is to do at least: as if no tile held a window that is skipped.

        Args:
            kept: Windows that are not skipped.
            activation: The input.
            convolution: What to compute.

        Returns:
            The amounts.
        """
        return _work(kept / RESULTS[len(convolution.windows.grid)], activation, convolution)

    def workload(self, activation: SparseActivation, convolution: Convolution) -> Workload:
        """Say what there is to do.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The amounts.
        """
        kernels = self._kernels(activation)
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        tiling = self._tiling_of(kernels, activation, plan)
        work = _work(len(tiling.tiles), activation, convolution, kernels, plan)
        if tiling.direct is None:
            return work
        reads = len(tiling.direct) * convolution.windows.volume
        channels = activation.channels
        macs = reads * channels * computed_channels(kernels, convolution)
        copied = work.cells + reads * channels
        # The windows are found on the grid.
        return work._replace(macs=work.macs + macs, cells=copied, sites=work.sites + activation.sites.total)

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute the kept windows, those that read rows which are partly NaN directly.

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
        tiling = self._tiling_of(kernels, activation, plan)
        if not multiply_in_tiles(*common, tiling):
            del out, common
            return super().run(activation, convolution)
        sure = tiling.direct is None or multiply_filled(*common, which=tiling.direct, outputs=tiling.direct)
        return SparseActivation(plan.out, out, partial=False, sure=sure)

    def _tiling_of(self, kernels: Kernels, activation: SparseActivation, plan: WindowPlan) -> Tiling:
        tiling = self._tilings.get(plan)
        if tiling is None:
            tiling = self._tilings[plan] = list_tiles(kernels, activation, plan)
        return tiling


def _is_plain(windows: Windows) -> bool:
    """Say whether a convolution is one that minimal filtering is for."""
    axes = len(windows.grid)
    ones = (1,) * axes
    shape = (windows.kernel, windows.stride, windows.dilation)
    return not windows.transposed and shape == ((3,) * axes, ones, ones)


def _mostly_partial(activation: SparseActivation, convolution: Convolution) -> list[str]:
    """Say so where rows that are partly NaN may reach all windows, as where NaN is in single channels."""
    if not activation.partial:
        return []
    plan = plan_windows(activation, convolution.windows, convolution.threshold)
    few = int(activation.nans.count_nonzero()) * convolution.windows.volume < len(plan.out)
    return [] if few else ["winograd runs layers with few rows that are partly NaN"]


def _work(
    tiles: float,
    activation: SparseActivation,
    convolution: Convolution,
    kernels: Kernels | None = None,
    plan: WindowPlan | None = None,
) -> Workload:
    """Count what so many tiles take; where there is a plan, what filling its windows takes as well."""
    axes, channels = len(convolution.windows.grid), activation.channels
    out = convolution.out_channels if kernels is None else computed_channels(kernels, convolution)
    turned = tiles * CELLS[axes]
    fills = 0 if plan is None else plan.fills
    volume = convolution.windows.volume
    return Workload(
        macs=turned * channels * out + fills * volume * out,
        reads=turned,
        cells=turned * channels,
        writes=turned * out + volume * channels * out,
        sites=activation.sites.total,
    )
