"""The ways that the demonstration compares."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
from torch import nn

from nansparse.background import USUAL_MARGIN, mask_background
from nansparse.errors import InputError
from nansparse.evaluation.runs import Way, cropped_way, dense_way, sparse_way
from nansparse.imaging.slices import to_slices
from nansparse.imaging.volume import Voxels
from nansparse.policy import Policy
from nansparse.zoo.fastsurfer import STRIDE

PLANE = "coronal"
DENSE, CHANNELS_LAST, BOX = "dense, NCHW", "dense, channels_last", "dense, channels_last, bounding box"
CONSERVATIVE, AGGRESSIVE, BACKGROUND = "conservative", "aggressive", "conservative, background NaN"
MARGINED = f"conservative, background NaN, margin {USUAL_MARGIN}"
# Slices a call. Dense layers of a single slice stay below the size from which on the allocator asks for fresh
# memory each time; runs that skip most of a slice hold less, and have calls to save.
MANY = 4


def set_up_ways(
    model: nn.Module, policy: Policy, volume: Voxels, blocks: ExitStack, position: dict[str, int]
) -> list[Way]:
    """Set up every way; the sparse ones stay enabled until the blocks are closed.

    Args:
        model: The network.
        policy: Options of the sparse runs; the mode is set here.
        volume: The conformed image.
        blocks: Takes the blocks in which nansparse is enabled.
        position: Holds the number of the first slice at hand under "slice".

    Returns:
        The ways.
    """
    conservative, aggressive = replace(policy, mode="conservative"), replace(policy, mode="aggressive")
    inner = dense_way(BOX, model, channels_last=True)
    ways = [
        dense_way(DENSE, model, channels_last=False),
        dense_way(CHANNELS_LAST, model, channels_last=True),
        cropped_way(BOX, inner, _bounding_box(volume), lambda: position["slice"]),
        blocks.enter_context(sparse_way(CONSERVATIVE, model, conservative)),
        blocks.enter_context(sparse_way(AGGRESSIVE, model, aggressive)),
        blocks.enter_context(sparse_way(BACKGROUND, model, conservative, mask_background)),
        blocks.enter_context(
            sparse_way(MARGINED, model, conservative, partial(mask_background, margin=USUAL_MARGIN))
        ),
    ]
    for way in ways:
        way.batch_size = MANY if way.name in (BOX, BACKGROUND, MARGINED) else 1
    return ways


def _bounding_box(volume: Voxels) -> tuple[slice, slice, slice]:
    """Find the box of the nonzero voxels, rows and columns widened to what the network takes."""
    stack = to_slices(volume, PLANE)
    if not stack.any():
        raise InputError("the image is zero everywhere")
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(stack.any(axis=others))
        start, stop = int(filled[0]), int(filled[-1]) + 1
        if axis > 0:
            size = -(-(stop - start) // STRIDE) * STRIDE
            start = min(start, stack.shape[axis] - size)
            stop = start + size
        box.append(slice(start, stop))
    return box[0], box[1], box[2]
