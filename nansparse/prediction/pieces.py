"""The parts of a volume that a network sees one after the other: slabs of slices, or windows.

A piece says how to cut the network's input out of the volume, and where each sample's scores belong. The
volume is (X, Y, Z); scores are collected in a tensor (C, X, Y, Z).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nansparse.errors import InputError
from nansparse.imaging.slices import PLANES

# Of a window's side: the standard deviation of the weights. The value nnU-Net and MONAI use.
_SIGMA = 0.125
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Piece:
    """One call of the network.

    Attributes:
        cut: Takes the volume, gives the input (N, C, *spatial).
        places: One a sample: takes (C, X, Y, Z), gives the view that the sample's scores (C, *spatial) go to.
        weight: How much the scores count: a number, or a tensor over the window.
    """

    cut: Callable[[Tensor], Tensor]
    places: tuple[Callable[[Tensor], Tensor], ...]
    weight: float | Tensor = 1.0


def slice_pieces(
    shape: tuple[int, ...], plane: str, thickness: int, batch_size: int, weight: float, empty: float = 0.0
) -> Iterator[Piece]:
    """Cut a volume into slabs: each slice with its neighbours as channels.

    A volume may hold NaN. A slab then holds NaN where all its slices do, and `empty` where only some do: to
    the network a slab's site is one site, and a neighbour's background is a fact about it.

    Args:
        shape: Of the volume, (L, I, A).
        plane: "coronal", "axial" or "sagittal".
        thickness: Slices per input, odd.
        batch_size: Slices per piece.
        weight: Of the view.
        empty: Intensity of the background, also of neighbours beyond the first and last slice.

    Yields:
        The pieces in the order of the slices.

    Raises:
        InputError: If thickness is even.
    """
    if thickness < 1 or thickness % 2 == 0:
        raise InputError(f"thickness must be odd, so that one slice is in the middle; got {thickness}")
    axes = PLANES[plane]
    for start in range(0, shape[axes[0]], batch_size):
        numbers = range(start, min(start + batch_size, shape[axes[0]]))
        places = tuple(_slice_place(axes, number) for number in numbers)
        yield Piece(_slab_cut(axes, numbers, thickness // 2, empty), places, weight)


def _slab_cut(
    axes: tuple[int, int, int], numbers: range, half: int, empty: float
) -> Callable[[Tensor], Tensor]:
    def cut(volume: Tensor) -> Tensor:
        stack = volume.permute(axes)
        slabs = stack.new_full((len(numbers), 2 * half + 1, *stack.shape[1:]), torch.nan)
        for slab, number in zip(slabs, numbers, strict=True):
            first, last = max(0, number - half), min(len(stack), number + half + 1)
            slab[first - number + half : last - number + half] = stack[first:last]
        nan = slabs.isnan()
        return slabs.masked_fill_(nan & ~nan.all(1, keepdim=True), empty)

    return cut


def _slice_place(axes: tuple[int, int, int], number: int) -> Callable[[Tensor], Tensor]:
    depth, height, width = axes
    return lambda total: total.permute(0, depth + 1, height + 1, width + 1)[:, number]


def window_pieces(
    shape: tuple[int, ...], window: tuple[int, ...], overlap: float, *, gaussian: bool
) -> Iterator[Piece]:
    """Cut a volume into overlapping windows, evenly spaced.

    Args:
        shape: Of the volume, no axis shorter than the window.
        window: Voxels along each axis.
        overlap: The least share of a window that its neighbour covers too.
        gaussian: Whether the middle counts more than the rim.

    Yields:
        The pieces, the last axis fastest.
    """
    starts = [_starts(size, side, overlap) for size, side in zip(shape, window, strict=True)]
    # A single window has nobody to share with.
    shared = any(len(along) > 1 for along in starts)
    weight = gaussian_weights(window) if gaussian and shared else 1.0
    for first in torch.cartesian_prod(*(torch.tensor(along) for along in starts)).tolist():
        box = tuple(slice(a, a + side) for a, side in zip(first, window, strict=True))
        yield Piece(_window_cut(box), (_window_place(box),), weight)


def count_windows(shape: tuple[int, ...], window: tuple[int, ...], overlap: float) -> int:
    """Count the windows of a volume.

    Args:
        shape: Of the volume.
        window: Voxels along each axis.
        overlap: The least share of a window that its neighbour covers too.

    Returns:
        How many there are.
    """
    count = 1
    for size, side in zip(shape, window, strict=True):
        count *= len(_starts(size, side, overlap))
    return count


def gaussian_weights(window: tuple[int, ...]) -> Tensor:
    """Make weights that fall off from the middle of a window, 1 at the most.

    Args:
        window: Voxels along each axis.

    Returns:
        float32, of the window's shape; above zero everywhere, so that no voxel is without a score.
    """
    weights = torch.ones(())
    for side in window:
        along = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2) / (side * _SIGMA)
        weights = weights[..., None] * torch.exp(-0.5 * along.square())
    return weights.clamp_(min=_LEAST_WEIGHT)


def _window_cut(box: tuple[slice, ...]) -> Callable[[Tensor], Tensor]:
    return lambda volume: volume[box][None, None]


def _window_place(box: tuple[slice, ...]) -> Callable[[Tensor], Tensor]:
    index = (slice(None), *box)
    return lambda total: total[index]


def _starts(size: int, side: int, overlap: float) -> list[int]:
    """Place windows along one axis so that they cover it."""
    step = max(int(side * (1.0 - overlap)), 1)
    count = -(-(size - side) // step) + 1 if size > side else 1
    return [round(number * (size - side) / max(count - 1, 1)) for number in range(count)]
