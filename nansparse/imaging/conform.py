"""The conformed grid: 256 voxels of 1 mm along each axis, axes to the left, downwards and to the front (LIA).

FreeSurfer and FastSurfer segment on this grid. The conformed voxel (128, 128, 128) is the centre voxel of the
native image, index shape // 2: FreeSurfer's choice for even sizes; for odd ones it avoids a shift by half a
voxel, so that an image of 1 mm along the world's axes is copied voxel for voxel. What lies outside the box is
lost.

Intensities become uint8: the 99.9th percentile of the positive voxels becomes 255, zero stays exactly zero,
and what is below zero becomes zero. Constant background is what NaN pooling lives on, so it must survive this
step.
"""

import numpy as np

from nansparse.errors import InputError
from nansparse.imaging.nifti import check_affine, require_nibabel
from nansparse.imaging.volume import Affine, Volume, Voxels

SIZE = 256
_LIA = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
_BRIGHT = 0.999
# Sampling positions are rounded to this, so that a position meant to be a voxel's centre is one.
_DECIMALS = 6


def conform(volume: Volume) -> Volume:
    """Bring an image to the conformed grid.

    Args:
        volume: Intensities, any grid.

    Returns:
        uint8 intensities, (256, 256, 256) in LIA order. uint8 images keep their intensities, as in
        FreeSurfer.
    """
    affine = conformed_affine(volume)
    data = volume.data
    if data.dtype != np.uint8:
        data = _scale_to_bytes(data)
    resampled = resample(data.astype(np.float32), volume.affine, (SIZE,) * 3, affine, order=1)
    return Volume(np.clip(np.rint(resampled), 0, 255).astype(np.uint8), affine)


def conform_labels(volume: Volume) -> Volume:
    """Bring labels to the conformed grid, by nearest neighbour.

    Args:
        volume: Labels, any grid.

    Returns:
        The labels, of the same type, (256, 256, 256) in LIA order; 0 outside the native image.
    """
    affine = conformed_affine(volume)
    return Volume(resample(volume.data, volume.affine, (SIZE,) * 3, affine, order=0), affine)


def restore_labels(labels: Voxels, native: Volume) -> Voxels:
    """Bring labels from the conformed grid back to the grid an image came from, by nearest neighbour.

    Args:
        labels: Labels on the conformed grid of `native`, (256, 256, 256).
        native: The image that was conformed.

    Returns:
        The labels, of the same type and of the shape of `native`; 0 outside the conformed box.

    Raises:
        InputError: If the labels are not on the conformed grid.
    """
    if labels.shape != (SIZE,) * 3:
        raise InputError(f"expected conformed labels of shape {(SIZE,) * 3}, got {labels.shape}")
    return resample(labels, conformed_affine(native), native.shape, native.affine, order=0)


def conformed_affine(volume: Volume) -> Affine:
    """Place the conformed grid around an image.

    Args:
        volume: The native image.

    Returns:
        The affine of the conformed grid, (4, 4).
    """
    check_affine(volume.affine, "the image")
    centre = volume.affine[:3, :3] @ [size // 2 for size in volume.shape] + volume.affine[:3, 3]
    affine = np.eye(4)
    affine[:3, :3] = _LIA
    affine[:3, 3] = centre - _LIA @ np.full(3, SIZE // 2)
    return affine


def resample(
    data: Voxels, affine: Affine, shape: tuple[int, int, int], target_affine: Affine, *, order: int
) -> Voxels:
    """Sample a volume on another grid.

    Args:
        data: Voxels, (X, Y, Z).
        affine: Where they are.
        shape: The other grid's size.
        target_affine: Where its voxels are.
        order: 0 for the nearest neighbour, 1 for linear interpolation.

    Returns:
        The samples, of data's type; 0 outside data.
    """
    require_nibabel()
    from scipy import ndimage

    to_source = np.linalg.inv(affine) @ target_affine
    return np.asarray(
        ndimage.affine_transform(
            data,
            np.round(to_source[:3, :3], _DECIMALS),
            offset=np.round(to_source[:3, 3], _DECIMALS),
            output_shape=shape,
            order=order,
            # Outside is 0, and the outermost voxels fade into it; "constant" would cut them off instead.
            mode="grid-constant",
            cval=0,
        )
    )


def _scale_to_bytes(data: Voxels) -> Voxels:
    """Scale intensities so that zero stays zero and the brightest but a few become 255.

    Args:
        data: Real numbers.

    Returns:
        float32 in [0, 255], not yet rounded.

    Raises:
        InputError: If no voxel is above zero.
    """
    positive = data[data > 0]
    if not positive.size:
        raise InputError("the image has no voxel above zero, so there is nothing to segment")
    bright = float(np.quantile(positive.astype(np.float32), _BRIGHT))
    return np.clip(data.astype(np.float32) * np.float32(255.0 / bright), 0.0, 255.0)
