"""Uniform regions: the sites of a tensor without NaN that repeat each other.

A stripped head lies in zeros. Until the first NaN every layer of a network turns that region into another
one, a few cells smaller: a point-wise operation keeps it, and a window that lies wholly in it has the output
of every other such window. Behind a transposed convolution sites repeat each other in steps, its stride.
Which sites these are follows from the geometry and the model's input; whether they still do is looked up in
the values by who uses it (`nansparse.handlers.repeated`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nansparse.windows import GAP, PADDING, Windows


@dataclass(frozen=True)
class Uniform:
    """The sites of a tensor that repeat each other.

    Attributes:
        mask: Bool (N, *grid), True at these sites.
        period: One integer a spatial axis: those sites of one sample have equal channels whose coordinates
            agree modulo the period.
    """

    mask: Tensor
    period: tuple[int, ...]

    @property
    def classes(self) -> int:
        """How many different rows a sample may have in the region."""
        return math.prod(self.period)

    @property
    def share(self) -> float:
        """The region's share of all sites."""
        return int(self.mask.count_nonzero()) / max(self.mask.numel(), 1)

    def through(self, windows: Windows) -> Uniform:
        """Find the outputs of an operation that repeat each other.

        Args:
            windows: What its outputs read: fixed cells, combined in the same way everywhere.

        Returns:
            The windows that lie wholly in the region; one that reaches into padding does not.
        """
        steps = zip(self.period, windows.stride, strict=True)
        if windows.transposed:
            tables = [windows.axis_table(axis) for axis in range(len(self.period))]
            return self.read_by(tables, tuple(p * s for p, s in steps))
        # Slices, where there are some, are several times faster than look-ups.
        other = self.mask.logical_not()
        for axis in range(len(self.period)):
            other = _any_in_window(other, axis, windows)
        return Uniform(other.logical_not_(), tuple(p // math.gcd(p, s) for p, s in steps))

    def read_by(self, tables: Sequence[Tensor], period: tuple[int, ...]) -> Uniform:
        """Find the outputs that read nothing but cells of the region.

        Args:
            tables: int64 (out, cells), one a spatial axis: what each output place of that axis reads, as
                `Windows.axis_table` has it.
            period: In which steps these outputs repeat each other.

        Returns:
            Their region.
        """
        other = self.mask.logical_not()
        for axis, table in enumerate(tables, start=1):
            other = _any_read(other, axis, table.to(other.device))
        return Uniform(other.logical_not_(), period)

    def meet(self, other: Uniform) -> Uniform:
        """Find the sites that repeat each other in two tensors at once, and so in what combines them.

        Args:
            other: The region of a tensor of the same batch and grid.

        Returns:
            The common region.
        """
        if other is self:
            return self
        periods = zip(self.period, other.period, strict=True)
        return Uniform(self.mask & other.mask, tuple(math.lcm(*both) for both in periods))

    def originals(self) -> Tensor:
        """Say which site each site repeats: the first one of its sample and class, in row-major order.

        Returns:
            int64 (N * grid,), flat site numbers; sites outside of the region repeat themselves.
        """
        numbers = torch.arange(self.mask.numel(), device=self.mask.device)
        inside = self.mask.flatten()
        if self.classes == 1:
            sites = numbers.view(len(self.mask), -1)
            first = self.mask.flatten(1).byte().argmax(1, keepdim=True) + sites[:, :1]
            return torch.where(inside.view_as(sites), first, sites).flatten()
        class_of = self._class_of_site()
        first = numbers.new_full((len(self.mask) * self.classes,), len(numbers))
        chosen = class_of[inside]
        first.scatter_reduce_(0, chosen, numbers[inside], "amin")
        return numbers.masked_scatter(inside, first.index_select(0, chosen))

    def _class_of_site(self) -> Tensor:
        """Number the classes: sample first, then the coordinates modulo the period."""
        batch, *grid = self.mask.shape
        number = torch.arange(batch, device=self.mask.device)
        for size, period in zip(grid, self.period, strict=True):
            phase = torch.arange(size, device=self.mask.device) % period
            number = number[..., None] * period + phase
        return number.flatten()


def find_uniform(x: Tensor) -> Uniform:
    """Find the sites that have the channels of their sample's first site, as a background has.

    Args:
        x: float32 (N, C, *spatial), no NaN, at least one site.

    Returns:
        The region; bits are compared, since the sign of a zero may matter later.
    """
    bits = x.detach().view(torch.int32)
    first = bits.flatten(2)[..., :1].view(*x.shape[:2], *(1,) * (x.dim() - 2))
    return Uniform((bits == first).all(1), (1,) * (x.dim() - 2))


def _any_in_window(mask: Tensor, axis: int, windows: Windows) -> Tensor:
    """Say which windows hold a cell of a mask along one spatial axis, or padding.

    Args:
        mask: Bool (N, *grid), the axes before this one done already.
        axis: The spatial axis.
        windows: The geometry; not transposed.

    Returns:
        Bool, as long along the axis as there are windows.
    """
    low, high = windows.padding[axis], max(windows.high_padding(axis), 0)
    shape = list(mask.shape)
    shape[axis + 1] += low + high
    wide = mask.new_ones(shape)
    wide.narrow(axis + 1, low, mask.shape[axis + 1]).copy_(mask)
    length = (windows.out_grid[axis] - 1) * windows.stride[axis] + 1
    every = (*[slice(None)] * (axis + 1), slice(None, None, windows.stride[axis]))
    found = wide.narrow(axis + 1, 0, length)[every].clone()
    for k in range(1, windows.kernel[axis]):
        found |= wide.narrow(axis + 1, k * windows.dilation[axis], length)[every]
    return found


def _any_read(mask: Tensor, axis: int, table: Tensor) -> Tensor:
    """Say which outputs of one axis read a cell of a mask, or padding.

    Args:
        mask: Bool.
        axis: Which of its axes is meant.
        table: int64 (out, kernel): what each output reads, as `Windows.axis_table` has it.

    Returns:
        Bool, `out` long along the axis.
    """
    found = None
    for reads in table.unbind(1):
        here = mask.index_select(axis, reads.clamp(min=0))
        lines = [1] * mask.dim()
        lines[axis] = len(reads)
        here |= (reads == PADDING).view(lines)
        here &= (reads != GAP).view(lines)
        found = here if found is None else found.logical_or_(here)
    return mask if found is None else found
