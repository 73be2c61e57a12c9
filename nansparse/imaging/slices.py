"""Slices of a conformed volume, stacked with their neighbours as the channels of a 2D network (2.5D).

Axis order. A conformed volume is (L, I, A): indices grow to the left, downwards and to the front.
FastSurfer's networks see its slices as (height, width):

========= ============ ====== =====
plane     slices along height width
========= ============ ====== =====
coronal   A (axis 2)   L (0)  I (1)
axial     I (axis 1)   A (2)  L (0)
sagittal  L (axis 0)   A (2)  I (1)
========= ============ ====== =====
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nansparse.errors import InputError
from nansparse.imaging.volume import Voxels

# plane: (axis of the slices, height, width)
PLANES = {"coronal": (2, 0, 1), "axial": (1, 2, 0), "sagittal": (0, 2, 1)}
THICKNESS = 7


def to_slices(volume: Voxels, plane: str) -> Voxels:
    """Look at a volume as a stack of slices.

    Args:
        volume: Conformed voxels, (L, I, A).
        plane: "coronal", "axial" or "sagittal".

    Returns:
        A view, (slices, height, width).
    """
    return np.transpose(volume, _axes(plane))


def from_slices(slices: Voxels, plane: str) -> Voxels:
    """Put a stack of slices back together; undoes `to_slices`.

    Args:
        slices: (slices, height, width).
        plane: "coronal", "axial" or "sagittal".

    Returns:
        A view, (L, I, A).
    """
    return np.transpose(slices, np.argsort(_axes(plane)))


def slabs(
    volume: Voxels, plane: str, indices: Sequence[int] | None = None, *, thickness: int = THICKNESS
) -> Tensor:
    """Make a network's input: every slice with its neighbours as channels.

    Args:
        volume: Conformed voxels, (L, I, A), uint8.
        plane: "coronal", "axial" or "sagittal".
        indices: Which slices, counted along the plane's axis; all by default.
        thickness: Slices per slab, odd; the middle one is the slice itself.

    Returns:
        float32 in [0, 1], (N, thickness, height, width). Neighbours beyond the first and last slice are
        zeros.

    Raises:
        InputError: If thickness is even, the voxels are not uint8, or an index is outside the volume.
    """
    if thickness < 1 or thickness % 2 == 0:
        raise InputError(f"thickness must be odd, so that one slice is in the middle; got {thickness}")
    if volume.dtype != np.uint8:
        raise InputError(
            f"expected a conformed uint8 volume, got {volume.dtype}; see nansparse.imaging.conform"
        )
    stack = to_slices(volume, plane)
    wanted = range(len(stack)) if indices is None else indices
    half = thickness // 2
    out = np.zeros((len(wanted), thickness, *stack.shape[1:]), dtype=np.float32)
    for slab, index in zip(out, wanted, strict=True):
        if not 0 <= index < len(stack):
            raise InputError(f"slice {index} is outside the volume, which has {len(stack)} {plane} slices")
        first, last = max(0, index - half), min(len(stack), index + half + 1)
        start = first - (index - half)
        slab[start : start + last - first] = stack[first:last]
    out /= 255.0
    return torch.from_numpy(out)


def _axes(plane: str) -> tuple[int, int, int]:
    """Look up a plane.

    Args:
        plane: Its name.

    Returns:
        Axis of the slices, of the height, and of the width.

    Raises:
        InputError: If there is no such plane.
    """
    if plane not in PLANES:
        raise InputError(f"plane is {plane!r}; supported: {', '.join(PLANES)}")
    return PLANES[plane]
