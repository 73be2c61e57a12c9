"""Blocks of the output grid that hold a kept window, and the cells each of them reads.

A tile is a block of outputs of a fixed size; with the cells around it that its windows reach (its halo) it is
a small image that an ordinary convolution without padding turns into the block.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.plan import WindowPlan
from nansparse.windows import Windows


@dataclass(frozen=True)
class Tiles:
    """The active tiles of one plan.

    Attributes:
        plan: The plan.
        size: Outputs a tile along each axis.
        lattice: Number of tiles along each axis, the last one possibly reaching past the grid.
        active: Flat numbers (sample, *lattice) of tiles with a kept window, int64 (A,), sorted.
    """

    plan: WindowPlan
    size: tuple[int, ...]
    lattice: tuple[int, ...]
    active: Tensor

    def __len__(self) -> int:
        """Count the active tiles."""
        return len(self.active)

    @property
    def volume(self) -> int:
        """Outputs of a tile."""
        return math.prod(self.size)

    @property
    def reach(self) -> tuple[int, ...]:
        """Cells that a tile reads along each axis, its halo included."""
        return tile_reach(self.plan.windows, self.size)

    @cached_property
    def table(self) -> Tensor:
        """(A, cells of a tile) row numbers; P stands for padding and P + 1 for a missing site."""
        windows, rows = self.plan.windows, self.plan.sites.row_of
        rank, reach = len(windows.grid), self.reach
        pads: list[int] = []
        sizes = []
        for axis in range(rank):
            low = windows.padding[axis]
            last = (self.lattice[axis] - 1) * self.size[axis] * windows.stride[axis]
            high = max(0, last + reach[axis] - low - windows.grid[axis])
            pads[:0] = [low, high]
            sizes.append(low + windows.grid[axis] + high)
        flat = F.pad(rows, pads, value=len(self.plan.sites)).flatten()
        strides = [math.prod(sizes[axis + 1 :]) for axis in range(rank)]
        place = torch.unravel_index(self.active, (len(rows), *self.lattice))
        start = place[0] * math.prod(sizes)
        within = torch.zeros(1, dtype=torch.int64, device=flat.device)
        for axis in range(rank):
            start = start + place[axis + 1] * (self.size[axis] * windows.stride[axis] * strides[axis])
            along = torch.arange(reach[axis], device=flat.device) * strides[axis]
            within = (within[:, None] + along).flatten()
        numbers = start[:, None] + within
        return flat.index_select(0, numbers.flatten()).view(numbers.shape)

    @cached_property
    def places(self) -> Tensor:
        """Where each kept window lies in the outputs of all active tiles, int64 (M,)."""
        sites = self.plan.out
        rank_of = torch.zeros(sites.batch * math.prod(self.lattice), dtype=torch.int64, device=sites.device)
        rank_of[self.active] = torch.arange(len(self.active), device=sites.device)
        place = rank_of.view(sites.batch, *self.lattice)
        within = torch.zeros((), dtype=torch.int64, device=sites.device)
        for axis, (size, out) in enumerate(zip(self.size, sites.grid, strict=True)):
            place = place.repeat_interleave(size, axis + 1).narrow(axis + 1, 0, out)
            along = torch.arange(out, device=sites.device) % size
            within = within[..., None] * size + along
        return (place * self.volume + within).flatten().index_select(0, sites.numbers)


def tile_reach(windows: Windows, size: tuple[int, ...]) -> tuple[int, ...]:
    """Say how many cells a tile reads along each axis.

    Args:
        windows: The geometry of an ordinary convolution.
        size: Outputs a tile along each axis.

    Returns:
        Number of cells, the halo included.
    """
    return tuple(
        (t - 1) * s + d * (k - 1) + 1
        for t, s, d, k in zip(size, windows.stride, windows.dilation, windows.kernel, strict=True)
    )


def find_tiles(plan: WindowPlan, size: tuple[int, ...]) -> Tiles:
    """Find the tiles of a size that hold a kept window.

    Args:
        plan: The kept windows.
        size: Outputs a tile along each axis.

    Returns:
        The tiles.
    """
    lattice = tuple(-(-out // t) for out, t in zip(plan.out.grid, size, strict=True))
    pads = [side for n, t, o in zip(lattice, size, plan.out.grid, strict=True) for side in (n * t - o, 0)]
    blocks = F.pad(plan.keep.view(torch.uint8), pads[::-1])
    for axis, (n, t) in enumerate(zip(lattice, size, strict=True)):
        blocks = blocks.unflatten(axis + 1, (n, t)).amax(axis + 2)
    return Tiles(plan, size, lattice, blocks.flatten().nonzero().flatten())
