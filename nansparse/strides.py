"""How tensors that have no memory of their own would lie in it."""

from functools import lru_cache

import torch


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
