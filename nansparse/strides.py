"""How images lie in memory, and rows and images that are views of each other.

Between two loops of several threads every operation of torch costs tens of microseconds: views take one each.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def strides_of(shape: torch.Size, *, channels_last: bool) -> list[int]:
    """Say how a tensor lies in memory.

    Args:
        shape: Its shape.
        channels_last: Whether channels come last; else they lie as the shape says.

    Returns:
        Cells from one entry of each axis to the next.
    """
    order = list(range(len(shape)))
    if channels_last and len(shape) in (4, 5):
        order = [0, *range(2, len(shape)), 1]
    strides = [0] * len(shape)
    step = 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return strides


def as_image(rows: Tensor, batch: int, grid: tuple[int, ...]) -> Tensor:
    """View the rows of a grid as an image.

    Args:
        rows: (N * grid, C).
        batch: N.
        grid: Its axes.

    Returns:
        (N, C, *grid), channels last in memory.
    """
    if not rows.is_contiguous():
        # Some channels of wider rows.
        return rows.view(batch, *grid, rows.shape[1]).movedim(-1, 1)
    shape = torch.Size((batch, rows.shape[1], *grid))
    return rows.as_strided(shape, strides_of(shape, channels_last=True))


def as_rows(image: Tensor) -> Tensor:
    """View an image as the rows of its grid, or copy it where channels do not come last.

    Args:
        image: (N, C, *grid).

    Returns:
        (N * grid, C), contiguous.
    """
    channels = image.shape[1]
    layout = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
    if image.is_contiguous(memory_format=layout):
        return image.as_strided((math.prod(image.shape) // max(channels, 1), channels), (max(channels, 1), 1))
    return image.movedim(1, -1).reshape(-1, channels).contiguous()
