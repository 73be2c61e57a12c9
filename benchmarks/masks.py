"""Masks of sites to measure with, from the friendliest to the least friendly."""

import math

import torch
from torch import Tensor

SHAPES = ("blob", "random")


def site_mask(shape: str, grid: tuple[int, ...], skipped: float, generator: torch.Generator) -> Tensor:
    """Draw which sites are NaN.

    Args:
        shape: "blob" (a compact round region is kept, as a brain is) or "random" (single sites).
        grid: Size of the grid.
        skipped: Share of the sites that is NaN.
        generator: Source of random numbers.

    Returns:
        Bool tensor over the grid, True where NaN.
    """
    if shape == "random":
        return torch.rand(grid, generator=generator) < skipped
    axes = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in grid), indexing="ij")
    distance = torch.stack([axis.square() for axis in axes]).sum(0)
    kept = max(1, round((1 - skipped) * math.prod(grid)))
    return distance > distance.flatten().sort().values[kept - 1]
