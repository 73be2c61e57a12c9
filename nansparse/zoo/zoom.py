"""FastSurferVINN's interpolation layer: brings images of any voxel size to one grid, and back.

The scale factor of an image is target voxel size / source voxel size, one number per spatial axis. Sizes are
whole numbers of pixels, so the factor that was really applied differs a little from the one asked for; the
layer returns it, and the way back uses it.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nansparse.errors import InputError

Factors = float | Sequence[float] | Sequence[Sequence[float]] | Tensor

# Where along one axis the part that is kept, or the image on its larger canvas, lies: the share of the cut
# that falls in front of it.
_ROWS = {"top_left": 0.0, "top_right": 0.0, "bottom_left": 1.0, "bottom_right": 1.0, "center": 0.5}
_COLUMNS = {"top_left": 0.0, "bottom_left": 0.0, "top_right": 1.0, "bottom_right": 1.0, "center": 0.5}
# Sizes are products of factors that were rounded before: 223.9999 pixels are 224.
_ROUNDING = 1e-4
_MODES = ("nearest", "bilinear", "bicubic", "area")


class Zoom2d(nn.Module):
    """Crop, interpolate and pad every image of a batch to one size, by a factor of its own.

    Args:
        target_shape: Height and width of the output.
        mode: Interpolation mode of `torch.nn.functional.interpolate`.
        anchor: The corner (or "center") of the image that stays in place when it is cropped or padded.

    Raises:
        InputError: If mode or anchor is unknown.
    """

    def __init__(
        self, target_shape: tuple[int, int], *, mode: str = "bilinear", anchor: str = "top_left"
    ) -> None:
        super().__init__()
        if mode not in _MODES:
            raise InputError(f"mode is {mode!r}; supported: {', '.join(_MODES)}")
        if anchor not in _ROWS:
            raise InputError(f"anchor is {anchor!r}; supported: {', '.join(_ROWS)}")
        self.target_shape = target_shape
        self.mode = mode
        self.anchor = anchor

    def forward(
        self, x: Tensor, factors: Factors, *, target_shape: tuple[int, int] | None = None
    ) -> tuple[Tensor, list[tuple[float, float]]]:
        """Zoom a batch.

        Args:
            x: Images, (N, C, H, W).
            factors: How many source pixels make one target pixel: one number for all, or for every image of
                the batch one number or one per axis (N, 1) or (N, 2).
            target_shape: Height and width of the output; the layer's own by default.

        Returns:
            The images, (N, C, *target_shape), and for each the factors that were applied, (height, width).
        """
        shape = self.target_shape if target_shape is None else target_shape
        wanted = per_image_factors(factors, x.shape[0])
        zoomed, applied = [], []
        for images, factor in _runs(x, wanted):
            image, used = self._zoom(images, factor, shape)
            zoomed.append(image)
            applied += [used] * images.shape[0]
        return torch.cat(zoomed), applied

    def _zoom(
        self, x: Tensor, factor: tuple[float, float], shape: tuple[int, int]
    ) -> tuple[Tensor, tuple[float, float]]:
        rows = _plan(x.shape[2], factor[0], shape[0], _ROWS[self.anchor])
        columns = _plan(x.shape[3], factor[1], shape[1], _COLUMNS[self.anchor])
        x = x[:, :, rows.source, columns.source]
        size = (rows.size, columns.size)
        if tuple(x.shape[2:]) != size:
            align = False if self.mode in ("bilinear", "bicubic") else None
            x = F.interpolate(x, size=size, mode=self.mode, align_corners=align)
        if any(rows.padding + columns.padding):
            x = F.pad(x, columns.padding + rows.padding)
        return x, (rows.factor, columns.factor)


def per_image_factors(factors: Factors, batch: int) -> list[tuple[float, float]]:
    """Spell out the scale factors: one pair per image.

    Args:
        factors: One number for all, or for every image one number or one per spatial axis.
        batch: Number of images.

    Returns:
        The factors of every image, (height, width).

    Raises:
        InputError: If the factors fit neither the batch nor the number of axes, or one is not a positive
            number.
    """
    table = torch.as_tensor(factors, dtype=torch.float64, device="cpu")
    if table.ndim < 2:
        table = table.reshape(-1, 1)
    if table.ndim != 2 or table.shape[0] not in (1, batch) or table.shape[1] not in (1, 2):
        raise InputError(
            f"scale factors of shape {tuple(table.shape)} for a batch of {batch}; expected one number, "
            f"({batch}, 1) or ({batch}, 2)"
        )
    if batch == 0:
        raise InputError("an empty batch cannot be zoomed; expected at least one image")
    if not bool((torch.isfinite(table) & (table > 0)).all()):
        raise InputError(f"scale factors must be positive and finite, got {table.tolist()}")
    return [(float(pair[0]), float(pair[1])) for pair in table.expand(batch, 2)]


class _Axis(NamedTuple):
    """What happens to one axis: the part read, the size it is interpolated to, zeros before and after."""

    source: slice
    size: int
    padding: tuple[int, int]
    factor: float


def _plan(length: int, factor: float, target: int, lead: float) -> _Axis:
    """Plan one axis: crop an image that reaches beyond the target, pad one that does not fill it.

    Args:
        length: Source pixels.
        factor: Source pixels per target pixel.
        target: Target pixels.
        lead: Share of what is cut off, or padded, that lies in front.

    Returns:
        The plan, with the factor that it really applies.
    """
    needed = math.floor(target * factor + _ROUNDING)
    if needed > length:
        size = max(1, math.floor(length / factor + _ROUNDING))
        front = int((target - size) * lead)
        return _Axis(slice(0, length), size, (front, target - size - front), length / size)
    # A centred crop loses the same number of pixels on both sides.
    if lead == 0.5 and (length - needed) % 2:
        needed -= 1
    needed = max(1, needed)
    start = int((length - needed) * lead)
    return _Axis(slice(start, start + needed), target, (0, 0), needed / target)


def _runs(x: Tensor, factors: list[tuple[float, float]]) -> Iterator[tuple[Tensor, tuple[float, float]]]:
    """Yield the images of a batch in runs that share a scale factor."""
    start = 0
    for factor, group in groupby(factors):
        count = len(list(group))
        yield x[start : start + count], factor
        start += count
