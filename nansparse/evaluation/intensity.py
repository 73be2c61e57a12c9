"""How well two images of real numbers agree (denoising, regression): PSNR, SSIM, the largest difference.

Both measures need a range of intensities to relate errors to: that of the reference (largest - smallest).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from nansparse.errors import InputError

Image = npt.NDArray[np.floating[Any]]
# The window and the constants of Wang et al. (IEEE Transactions on Image Processing 2004), uniform window.
_WINDOW = 7
_K1, _K2 = 0.01, 0.03


def compare_images(image: Image, reference: Image) -> dict[str, float]:
    """Compare an image with a reference.

    Args:
        image: Real numbers, 2D or 3D.
        reference: The same shape.

    Returns:
        "psnr_db" (infinite for equal images), "ssim" (mean over the image) and "max_difference" (absolute).
    """
    first, second = _checked(image, reference)
    return {
        "psnr_db": psnr(first, second),
        "ssim": ssim(first, second),
        "max_difference": float(np.abs(first - second).max()),
    }


def psnr(image: Image, reference: Image) -> float:
    """Compute the peak signal-to-noise ratio, 10 log10(range^2 / mean squared error).

    Args:
        image: Real numbers, any shape.
        reference: The same shape; its range is the peak.

    Returns:
        Decibels; infinite for equal images, minus infinity where a constant reference is missed.
    """
    first, second = _checked(image, reference)
    error = float(np.mean((first - second) ** 2))
    extent = float(np.ptp(second))
    if error == 0.0:
        return math.inf
    return 10 * math.log10(extent**2 / error) if extent > 0.0 else -math.inf


def ssim(image: Image, reference: Image) -> float:
    """Compute the structural similarity (Wang et al. 2004), windows of 7 voxels a side, uniform weights.

    Args:
        image: Real numbers, 2D or 3D, at least 7 voxels a side.
        reference: The same shape; its range sets the constants.

    Returns:
        The mean over all windows inside the image; 1 for equal images.

    Raises:
        InputError: If the images are smaller than a window.
    """
    first, second = _checked(image, reference)
    if min(first.shape) < _WINDOW:
        raise InputError(f"SSIM needs at least {_WINDOW} voxels along each axis, got {first.shape}")
    if np.array_equal(first, second):
        return 1.0
    try:
        from scipy.ndimage import uniform_filter
    except ImportError as error:
        raise InputError("SSIM needs scipy: pip install 'nansparse[evaluation]'") from error

    def mean(x: Image) -> Image:
        return np.asarray(uniform_filter(x, _WINDOW))

    cells = _WINDOW**first.ndim
    unbiased = cells / (cells - 1)
    mean_1, mean_2 = mean(first), mean(second)
    variance_1 = unbiased * (mean(first * first) - mean_1 * mean_1)
    variance_2 = unbiased * (mean(second * second) - mean_2 * mean_2)
    covariance = unbiased * (mean(first * second) - mean_1 * mean_2)
    extent = float(np.ptp(second))
    c1, c2 = (_K1 * extent) ** 2, (_K2 * extent) ** 2
    over = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    under = (mean_1**2 + mean_2**2 + c1) * (variance_1 + variance_2 + c2)
    # Windows that reach over the edge see invented voxels.
    inner = (slice(_WINDOW // 2, -(_WINDOW // 2)),) * first.ndim
    # A reference without range leaves nothing to relate errors to: where both are flat and differ, 0.
    quotient = np.divide(over, under, out=np.zeros_like(over), where=under != 0)
    return float(quotient[inner].mean())


def _checked(image: Image, reference: Image) -> tuple[Image, Image]:
    """Bring two images to float64.

    Args:
        image: One.
        reference: The other.

    Returns:
        Both.

    Raises:
        InputError: If their shapes differ or one holds NaN or infinity.
    """
    first, second = np.asarray(image, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if first.shape != second.shape or not first.size:
        raise InputError(f"images must have one shape and voxels, got {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("images to compare must hold finite numbers")
    return first, second
