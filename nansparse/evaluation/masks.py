"""Masks of NaN to measure with, from the friendliest to the least friendly.

Each shape gives every place a score; the share asked for with the highest scores is NaN. So every shape can
have any share exactly (to one place), and of two shares of a shape the smaller mask lies inside the larger.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nansparse.errors import InputError

Score = Callable[[tuple[int, ...], torch.Generator], Tensor]


def nan_mask(
    shape: str, channels: int, grid: tuple[int, ...], ratio: float, generator: torch.Generator
) -> Tensor:
    """Draw which cells are NaN.

    Args:
        shape: One of `MASKS`: "cells" (single cells of single channels), "sites" (single sites, all
            channels), "border" (all but a box in the middle), "blob" (all but a ball in the middle), "brain"
            (all but the middle of the MNI152 brain mask, an axial slice of it in 2D).
        channels: Number of channels.
        grid: Size of the grid.
        ratio: Share of the cells that is NaN, in [0, 1].
        generator: Source of random numbers.

    Returns:
        Bool (1, channels, *grid), True where NaN.

    Raises:
        InputError: If the shape is unknown or the ratio outside [0, 1].
    """
    if shape not in MASKS:
        raise InputError(f"mask must be one of {', '.join(map(repr, MASKS))}, got {shape!r}")
    if not 0.0 <= ratio <= 1.0:
        raise InputError(f"the share of NaN must be in [0, 1], got {ratio!r}")
    places = (channels, *grid) if shape == "cells" else grid
    score = MASKS[shape](places, generator).flatten()
    mask = torch.zeros(math.prod(places), dtype=torch.bool)
    mask[score.argsort(descending=True, stable=True)[: round(ratio * len(score))]] = True
    mask = mask.view(1, -1, *grid)
    return mask.expand(1, channels, *grid).contiguous()


def _random(places: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(places, generator=generator)


def _from_middle(places: tuple[int, ...]) -> list[Tensor]:
    return list(torch.meshgrid(*(torch.linspace(-1, 1, size).abs() for size in places), indexing="ij"))


def _border(places: tuple[int, ...], generator: torch.Generator) -> Tensor:
    del generator
    return torch.stack(_from_middle(places)).amax(0)


def _blob(places: tuple[int, ...], generator: torch.Generator) -> Tensor:
    del generator
    return torch.stack([axis.square() for axis in _from_middle(places)]).sum(0)


def _brain(places: tuple[int, ...], generator: torch.Generator) -> Tensor:
    del generator
    from scipy import ndimage

    from nansparse.imaging.template import load_template

    mask = load_template().brain_mask.data > 0
    inside = mask[:, :, mask.shape[2] // 2] if len(places) == 2 else mask
    # How far outside the brain (negative inside): a smaller share of NaN leaves a margin around it.
    outside = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    zoom = [new / old for new, old in zip(places, outside.shape, strict=True)]
    resized = ndimage.zoom(outside, zoom, order=1, grid_mode=True, mode="nearest")
    return torch.from_numpy(np.ascontiguousarray(resized, dtype=np.float32))


MASKS: dict[str, Score] = {
    "cells": _random,
    "sites": _random,
    "border": _border,
    "blob": _blob,
    "brain": _brain,
}
