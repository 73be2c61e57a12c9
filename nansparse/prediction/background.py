"""Marking the background of a prepared volume as NaN, from its intensities or from a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nansparse.background import mask_background
from nansparse.errors import InputError
from nansparse.imaging.conform import resample
from nansparse.imaging.nifti import load_volume
from nansparse.prediction.grids import Prepared
from nansparse.prediction.recipe import Recipe


def marked(volume: Tensor, prepared: Prepared, image: Path, recipe: Recipe) -> Tensor:
    """Mark what the recipe calls background.

    Args:
        volume: The padded volume, float32 (X, Y, Z).
        prepared: The image it was made from.
        image: Its file; a mask is looked up by its name.
        recipe: The recipe.

    Returns:
        The volume with NaN in the background, or the volume itself.
    """
    background = recipe.background
    if background is None:
        return volume
    inside = None if background.mask is None else _mask(volume, prepared, mask_for(image, background.mask))
    return mask_background(volume[None, None], value=background.value, margin=background.margin, mask=inside)[
        0, 0
    ]


def mask_for(image: Path, mask: Path) -> Path:
    """Find the mask of an image.

    Args:
        image: The image.
        mask: A mask, or a folder with one of each image's name.

    Returns:
        The file.

    Raises:
        InputError: If there is none.
    """
    path = mask / image.name if mask.is_dir() else mask
    if not path.is_file():
        raise InputError(f"no mask for {image.name} at {path}")
    return path


def _mask(volume: Tensor, prepared: Prepared, path: Path) -> Tensor:
    """Bring a mask to the padded grid: (1, X, Y, Z)."""
    mask = load_volume(path)
    data = (mask.data != 0).astype(np.uint8)
    inside = resample(data, mask.affine, prepared.data.shape, prepared.affine, order=0)
    if not inside.any():
        raise InputError(f"the mask {path.name} holds no voxel of the image")
    kept = torch.zeros(tuple(volume.shape), dtype=torch.bool)
    kept[tuple(slice(size) for size in inside.shape)] = torch.from_numpy(inside.astype(bool))
    return kept[None]
