"""Geometry: which cells of the input grid one output value reads.

An output position and a kernel position meet in one of three states:

* a cell of the input grid, given as its flat number (row-major over the spatial axes),
* `PADDING`: outside the grid; it counts as a real zero,
* `GAP`: between the strides of a transposed convolution; it is no cell and counts as nothing.

Spatial axes are in tensor order throughout, whatever their number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import index

import torch
from torch import Tensor

from nansparse.errors import InputError

PADDING = -1
GAP = -2
Ints = tuple[int, ...]


def as_ints(value: int | Sequence[int], rank: int, name: str, minimum: int) -> Ints:
    """Spread an option such as a kernel size over the spatial axes.

    Args:
        value: One integer for all axes, or one an axis (a single one in a sequence counts for all).
        rank: Number of spatial axes.
        name: The option's name, for the message.
        minimum: Smallest value allowed.

    Returns:
        One integer an axis.

    Raises:
        InputError: If the number of values or one of the values is wrong.
    """
    try:
        values = tuple(index(v) for v in ((value,) if isinstance(value, int) else value))
    except TypeError:  # no integer, or no sequence at all
        values = ()
    values = values * rank if len(values) == 1 else values
    if len(values) != rank or min(values) < minimum:
        raise InputError(f"{name} must be an integer >= {minimum}, or {rank} of them, got {value!r}")
    return values


@dataclass(frozen=True)
class Windows:
    """The windows of one operation on one input grid.

    Attributes:
        grid: Size of the input grid, one integer a spatial axis.
        out_grid: Size of the output grid.
        kernel: Kernel size.
        stride: Stride.
        padding: Padding on the low side (the high side follows from `out_grid`).
        dilation: Dilation.
        transposed: Whether this is a transposed convolution.
    """

    grid: Ints
    out_grid: Ints
    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    transposed: bool = False

    @property
    def volume(self) -> int:
        """Number of kernel positions."""
        return math.prod(self.kernel)

    def high_padding(self, axis: int) -> int:
        """Say how far the last window reaches past the grid; negative if it ends before the last cell.

        Args:
            axis: Spatial axis, from 0.

        Returns:
            Number of padding cells on the high side of a convolution.
        """
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        last = (self.out_grid[axis] - 1) * self.stride[axis] - self.padding[axis]
        return last + reach + 1 - self.grid[axis]

    @cached_property
    def further_behind(self) -> Ints:
        """Padding cells that are needed on the high side of each axis beyond those on the low side."""
        return tuple(max(self.high_padding(axis) - low, 0) for axis, low in enumerate(self.padding))

    def full_size(self, axis: int) -> int:
        """Say how long the output of a transposed convolution is before output padding.

        Args:
            axis: Spatial axis, from 0.

        Returns:
            Number of outputs.
        """
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        return (self.grid[axis] - 1) * self.stride[axis] - 2 * self.padding[axis] + reach + 1

    def axis_table(self, axis: int) -> Tensor:
        """Meet every output position with every kernel position along one axis.

        Args:
            axis: Spatial axis, from 0.

        Returns:
            int64 tensor (out, kernel): the input position, `PADDING` or `GAP`.
        """
        out = torch.arange(self.out_grid[axis])[:, None]
        reach = torch.arange(self.kernel[axis])[None, :] * self.dilation[axis]
        if self.transposed:
            scaled = out + self.padding[axis] - reach
            position = torch.div(scaled, self.stride[axis], rounding_mode="floor")
            is_gap = scaled % self.stride[axis] != 0
        else:
            position = out * self.stride[axis] - self.padding[axis] + reach
            is_gap = torch.zeros_like(position, dtype=torch.bool)
        outside = (position < 0) | (position >= self.grid[axis])
        return position.masked_fill(outside, PADDING).masked_fill(is_gap, GAP)

    def table(self, device: torch.device | None = None) -> Tensor:
        """Meet every output position with every kernel position.

        Args:
            device: Where the table is needed.

        Returns:
            int64 tensor (outputs, kernel volume), both row-major: the flat cell number, `PADDING` or `GAP`.
        """
        return _table(self).to(device) if device is not None else _table(self)

    def cells(self) -> Tensor:
        """Count the cells of each window, padding included and gaps not.

        Returns:
            int64 tensor of shape `out_grid`.
        """
        counts = torch.ones((), dtype=torch.int64)
        for axis in range(len(self.grid)):
            counts = counts[..., None] * (self.axis_table(axis) != GAP).sum(1)
        return counts


# Keeps the tables of the layers in use; an entry is freed when newer geometries push it out.
@lru_cache(maxsize=16)
def _table(windows: Windows) -> Tensor:
    numbers = torch.zeros(1, 1, dtype=torch.int64)
    for axis, size in enumerate(windows.grid):
        along = windows.axis_table(axis)
        outer, inner = numbers[:, None, :, None], along[None, :, None, :]
        joined = outer * size + inner
        joined = joined.masked_fill((outer == PADDING) | (inner == PADDING), PADDING)
        joined = joined.masked_fill((outer == GAP) | (inner == GAP), GAP)
        numbers = joined.flatten(2).flatten(0, 1)
    return numbers


def convolution_windows(
    grid: Sequence[int],
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Windows:
    """Lay out the windows of a convolution.

    Args:
        grid: Size of the input grid.
        kernel: Kernel size.
        stride: Stride.
        padding: Zeros on either side, or "valid", or "same" (stride 1; the odd cell goes to the high side).
        dilation: Dilation.

    Returns:
        The windows.

    Raises:
        InputError: If an option is wrong or no window fits the padded grid.
    """
    grid, rank = tuple(grid), len(grid)
    sizes, steps = as_ints(kernel, rank, "kernel_size", 1), as_ints(stride, rank, "stride", 1)
    dilations = as_ints(dilation, rank, "dilation", 1)
    spans = tuple(d * (k - 1) for d, k in zip(dilations, sizes, strict=True))
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise InputError(f"padding must be integers, 'same' or 'valid', got {padding!r}")
        if padding == "same" and max(steps) > 1:
            raise InputError("padding='same' needs stride 1")
        totals = spans if padding == "same" else (0,) * rank
        low = tuple(total // 2 for total in totals)
    else:
        low = as_ints(padding, rank, "padding", 0)
        totals = tuple(2 * p for p in low)
    out = tuple((g + t - s - 1) // st + 1 for g, t, s, st in zip(grid, totals, spans, steps, strict=True))
    _check_not_empty(out, grid, sizes)
    return Windows(grid, out, sizes, steps, low, dilations)


def transposed_windows(
    grid: Sequence[int],
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Windows:
    """Lay out the windows of a transposed convolution, seen from its outputs.

    Args:
        grid: Size of the input grid.
        kernel: Kernel size.
        stride: Stride.
        padding: Cells cut from either side of the full output.
        output_padding: Cells added on the high side; smaller than the stride or the dilation.
        dilation: Dilation.

    Returns:
        The windows.

    Raises:
        InputError: If an option is wrong or the output is empty.
    """
    grid, rank = tuple(grid), len(grid)
    sizes, steps = as_ints(kernel, rank, "kernel_size", 1), as_ints(stride, rank, "stride", 1)
    low, dilations = as_ints(padding, rank, "padding", 0), as_ints(dilation, rank, "dilation", 1)
    extra = as_ints(output_padding, rank, "output_padding", 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, steps, dilations, strict=True)):
        raise InputError(f"output_padding must be smaller than stride or dilation, got {output_padding!r}")
    out = tuple(
        (g - 1) * s - 2 * p + d * (k - 1) + e + 1
        for g, s, p, d, k, e in zip(grid, steps, low, dilations, sizes, extra, strict=True)
    )
    _check_not_empty(out, grid, sizes)
    return Windows(grid, out, sizes, steps, low, dilations, transposed=True)


def _check_not_empty(out: Ints, grid: Ints, kernel: Ints) -> None:
    if min(out) < 1:
        raise InputError(f"no output: kernel {kernel} does not fit the padded input grid {grid}")
