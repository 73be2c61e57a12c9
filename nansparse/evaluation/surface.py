"""Distances between the surfaces of two regions, in millimetres.

The surface of a region are its voxels that touch what is outside through a face (the edge of the grid is
outside). Distances go from voxel centre to voxel centre in the world, so voxels of any size and affines with
shear are measured rightly. A voxel on both surfaces has distance 0, so only the others are looked up, in a
k-d tree; with regions that agree nearly everywhere that is a small part.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from nansparse.errors import InputError
from nansparse.imaging.volume import Affine

Mask = npt.NDArray[np.bool_]
_PERCENTILE = 95.0


def surface_distances(
    first: Mask, second: Mask, affine: Affine, longest: float | None = None
) -> tuple[float, float]:
    """Measure how far two surfaces are apart.

    Args:
        first: A region, bool (X, Y, Z).
        second: Another, of the same shape.
        affine: From voxel indices to millimetres, (4, 4).
        longest: What counts as the distance to a region that is empty; the diagonal of the grid when None.

    Returns:
        HD95 (the larger of the 95th percentiles of the two directed distances) and the average symmetric
        surface distance (the mean over the voxels of both surfaces), in millimetres. Both are 0 if both
        regions are empty, and `longest` if one is.
    """
    box = joint_box(first | second)
    if box is None:
        return 0.0, 0.0
    if not first.any() or not second.any():
        missed = diagonal(first.shape, affine) if longest is None else longest
        return missed, missed
    surfaces = [_surface(region[box]) for region in (first, second)]
    there = _directed(surfaces[0], surfaces[1], affine)
    back = _directed(surfaces[1], surfaces[0], affine)
    hd95 = max(float(np.percentile(there, _PERCENTILE)), float(np.percentile(back, _PERCENTILE)))
    return hd95, float(np.concatenate([there, back]).mean())


def diagonal(shape: tuple[int, ...], affine: Affine) -> float:
    """Find the largest distance of two voxels of a grid.

    Args:
        shape: Voxels along the axes.
        affine: From voxel indices to millimetres, (4, 4).

    Returns:
        Millimetres between the centres of the farthest corners.
    """
    reach = np.array([size - 1 for size in shape], dtype=np.float64)
    # With shear the space diagonals differ; opposite signs give the same one twice.
    signs = itertools.product((1, -1), repeat=len(shape))
    return max(float(np.linalg.norm(affine[:3, :3] @ (reach * np.array(sign)))) for sign in signs)


def joint_box(region: Mask) -> tuple[slice, ...] | None:
    """Find the smallest box around a region.

    Args:
        region: Bool, any shape.

    Returns:
        A slice an axis; None if the region is empty.
    """
    box = []
    for axis in range(region.ndim):
        others = tuple(other for other in range(region.ndim) if other != axis)
        filled = np.flatnonzero(region.any(axis=others))
        if not len(filled):
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _surface(region: Mask) -> Mask:
    """Keep the voxels that touch the outside through a face."""
    return region & ~np.asarray(_ndimage().binary_erosion(region))


def _directed(start: Mask, end: Mask, affine: Affine) -> npt.NDArray[np.float64]:
    """Measure from each voxel of one surface to the nearest of the other, in millimetres."""
    distances = np.zeros(int(start.sum()))
    apart = np.argwhere(start & ~end)
    if len(apart):
        from scipy.spatial import cKDTree

        # Voxels of a surface are spread evenly: balancing the tree costs more than it saves.
        tree = cKDTree(np.argwhere(end) @ affine[:3, :3].T, balanced_tree=False, compact_nodes=False)
        distances[: len(apart)] = tree.query(apart @ affine[:3, :3].T, workers=-1)[0]
    return distances


def _ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError as error:
        raise InputError(
            "distances between surfaces need scipy: pip install 'nansparse[evaluation]'"
        ) from error
    return ndimage
