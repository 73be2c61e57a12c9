"""Which cells each output place of an interpolation reads, and with what weights.

torch is asked, with cells that hold their own numbers, or NaN: its ways for planes and volumes, NCHW and
channels last, round positions differently, and where a position comes close to a cell they read other cells.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR = {"bilinear": 2, "trilinear": 3}
NEAREST = ("nearest", "nearest-exact")
# Of cells in a row, no output place reads two that are so far apart.
APART = 4
# From so many channels on torch takes another way.
CHANNELS = 4


def interpolation_reads(bound: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]] | None:
    """Say which cells each output place of an interpolation reads.

    Args:
        bound: The arguments of `torch.nn.functional.interpolate` by name.

    Returns:
        One int64 (out, k) a spatial axis, and their weights, of the same shapes; no weights where k is 1.
        None for other modes than nearest, bilinear and trilinear, and with antialiasing.
    """
    x, mode = bound["input"], bound["mode"]
    rank = x.dim() - 2
    if bound["antialias"] or (mode not in NEAREST and LINEAR.get(mode) != rank):
        return None
    # The output grid, and the errors of torch, from a tensor without data.
    names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
    options = {name: bound[name] for name in names}
    stand_in = torch.empty(x.shape, dtype=torch.float32, device="meta")
    try:
        out = F.interpolate(stand_in, **options).shape
    except ZeroDivisionError:
        # No output place: tensors with data get a better message.
        return None
    if 0 in out or 0 in x.shape:
        return None
    scales = [None] * rank if bound["recompute_scale_factor"] else _per_axis(bound["scale_factor"], rank)
    axes = [_Axis(x, at, out[at + 2], scale, bound) for at, scale in enumerate(scales)]
    if mode in NEAREST:
        whole = all(axis.is_doubled for axis in axes)
        found = [axis.doubled() for axis in axes] if whole else _nearest(x, options)
        return [cells[:, None] for cells in found], []
    cells, weights = zip(*(axis.linear() for axis in axes), strict=True)
    return list(cells), list(weights)


def _per_axis(scale: Any, rank: int) -> list[float | None]:
    if scale is None or isinstance(scale, (int, float)):
        return [scale] * rank
    return list(scale)


def _nearest(x: Tensor, options: dict[str, Any]) -> list[Tensor]:
    """Let torch interpolate the cells' own numbers, on an image of the same kind and size."""
    rank = x.dim() - 2
    lines = [torch.arange(size, dtype=_position_type(x), device=x.device) for size in x.shape[2:]]
    numbers = torch.stack(torch.meshgrid(*lines, indexing="ij"))[:, None]
    found = F.interpolate(_like(x, numbers), **options)[:, 0]
    along = [(at, *[slice(None) if axis == at else 0 for axis in range(rank)]) for at in range(rank)]
    return [found[index].long() for index in along]


def _position_type(x: Tensor) -> torch.dtype:
    # Types of half the width are interpolated at positions of this one.
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _like(x: Tensor, image: Tensor) -> Tensor:
    """Lay an image of one channel out as another one lies in memory, with some of its channels."""
    channels, layout = min(x.shape[1], CHANNELS), torch.contiguous_format
    # Of one channel, memory looks the same either way.
    if channels > 1 and x.stride(1) == 1:
        layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return image.expand(-1, channels, *image.shape[2:]).contiguous(memory_format=layout)


class _Axis:
    """One axis of an interpolation; the others are a single cell."""

    def __init__(self, x: Tensor, at: int, out: int, scale: float | None, bound: dict[str, Any]) -> None:
        """Look at an axis.

        Args:
            x: What is interpolated.
            at: Number of the axis.
            out: Output places.
            scale: The scale factor that was asked for; None if the sizes decide.
            bound: The arguments of the interpolation by name.
        """
        self.x, self.rank, self.at, self.out, self.scale = x, x.dim() - 2, at, out, scale
        self.size, self.mode, self.corners = x.shape[at + 2], bound["mode"], bound["align_corners"]
        self.dtype = _position_type(x)

    @property
    def is_doubled(self) -> bool:
        """Whether there are 1, 2, 4, ... output places a cell, so that no position is rounded."""
        factor = self.out // self.size
        exact = self.out == factor * self.size and factor & (factor - 1) == 0
        return exact and self.scale in (None, factor)

    def doubled(self) -> Tensor:
        """Say which cell each output place reads there, int64 (out,)."""
        return torch.arange(self.out, device=self.x.device) // (self.out // self.size)

    def linear(self) -> tuple[Tensor, Tensor]:
        """Say which two cells each output place reads, int64 (out, 2), and their weights."""
        position = self._positions()
        # Off by one where torch rounds the position to the other side of a cell.
        low = position.long().clamp(max=self.size - 1) - 1
        numbers = torch.arange(self.size, device=self.x.device)
        turns = torch.arange(APART, device=self.x.device)[:, None]
        holed = torch.zeros(APART, self.size, dtype=self.dtype, device=self.x.device)
        reads = self._interpolated(holed.masked_fill_(numbers % APART == turns, torch.nan)).isnan()
        cells = low + (turns - low) % APART
        # Where the position is a cell's own, torch may read the next one with weight 0: NaN spreads from it.
        first = cells.where(reads, self.size).amin(0)
        second = cells.where(reads, -1).amax(0)
        share = (position - first).clamp(0, 1)
        return torch.stack([first, second], 1), torch.stack([1 - share, share], 1)

    def _positions(self) -> Tensor:
        """Say where on the axis each output place lies."""
        place = torch.arange(self.out, dtype=self.dtype, device=self.x.device)
        if self.out == self.size:
            return place
        if self.corners:
            step = (self.size - 1) / (self.out - 1) if self.out > 1 else 0.0
            return place * torch.tensor(step, dtype=self.dtype)
        step = 1 / self.scale if self.scale else self.size / self.out
        return ((place + 0.5) * torch.tensor(step, dtype=self.dtype) - 0.5).clamp(min=0)

    def _interpolated(self, lines: Tensor) -> Tensor:
        """Interpolate lines of cells as torch interpolates `x` along this axis.

        Args:
            lines: (L, size).

        Returns:
            (L, out).
        """
        image = _like(self.x, lines.view(-1, 1, *self._along(self.size, 1)))
        options: dict[str, Any] = {"mode": self.mode, "align_corners": self.corners}
        if self.scale is None:
            options["size"] = self._along(self.out, 1)
        else:
            options["scale_factor"] = self._along(self.scale, 1.0)
        return F.interpolate(image, **options)[:, 0].flatten(1)

    def _along(self, here: Any, elsewhere: Any) -> list[Any]:
        """Give a number to this axis and another to all others."""
        return [here if axis == self.at else elsewhere for axis in range(self.rank)]
