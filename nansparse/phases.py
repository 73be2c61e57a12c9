"""Outputs of a convolution in groups that meet the same kernel positions, and how they read a padded map.

An ordinary convolution has one such group; the outputs of a transposed one fall into as many as its strides
have residues.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nansparse.windows import Windows


@dataclass(frozen=True)
class Phase:
    """Outputs start, start + step, ... that share kernel positions.

    Cell = scale * t + offset along each axis.
    """

    starts: tuple[int, ...]
    step: tuple[int, ...]
    scale: tuple[int, ...]
    positions: list[int]
    offsets: list[tuple[int, ...]]


def find_phases(windows: Windows) -> list[Phase]:
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
            Phase(starts, step, scale, numbers.flatten().tolist(), list(itertools.product(*offsets)))
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


def padded_reads(
    phase: Phase, grid: tuple[int, ...], counts: tuple[int, ...], rows: Tensor
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
