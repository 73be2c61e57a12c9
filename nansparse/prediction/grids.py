"""The grid that a network sees: an image is brought there, and what comes out is brought back.

Axis order of a `Prepared` image is that of its grid: (L, I, A) when conformed, else as the orientation says
("RAS": indices grow to the right, to the front and upwards).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nansparse.errors import InputError
from nansparse.imaging.conform import conform, resample
from nansparse.imaging.nifti import require_nibabel
from nansparse.imaging.volume import Affine, Volume, Voxels
from nansparse.prediction.bundles import prepare_as_bundle

CONFORMED, NATIVE, BUNDLE = "conformed", "native", "bundle"
INTENSITIES = ("unit", "zscore", "none")
_BRIGHT = 0.999
# Two directions are taken for opposite ones of the same axis, whichever comes first.
_SIDES = ("LR", "PA", "IS")


@dataclass(frozen=True)
class Grid:
    """Which grid and which intensities a network was trained on.

    Attributes:
        kind: "conformed" (256 voxels of 1 mm, LIA, as FastSurfer), "native" (the file's own, but for
            orientation and spacing), or "bundle" (what a MONAI bundle's preprocessing gives).
        orientation: Three letters such as "RAS"; empty for that of the file. Native grids only.
        spacing: Millimetres along the three axes; None for that of the file. Native grids only.
        intensity: "unit" (0 to 1: the 99.9th percentile of the positive voxels becomes 1), "zscore" (mean 0
            and deviation 1 over the nonzero voxels, zeros stay), or "none". Native grids only.
        bundle: Folder of the bundle.

    Raises:
        InputError: On construction, if an option is unknown or does not go with the kind.
    """

    kind: str = CONFORMED
    orientation: str = ""
    spacing: tuple[float, float, float] | None = None
    intensity: str = "unit"
    bundle: Path | None = None

    def __post_init__(self) -> None:
        """Validate."""
        if self.kind not in (CONFORMED, NATIVE, BUNDLE):
            raise InputError(f"grid must be one of 'conformed', 'native', 'bundle', got {self.kind!r}")
        if self.intensity not in INTENSITIES:
            raise InputError(f"intensity must be one of {', '.join(INTENSITIES)}, got {self.intensity!r}")
        if self.orientation and not _is_orientation(self.orientation):
            raise InputError(
                f"unknown orientation {self.orientation!r}: expected one letter each of L/R, P/A and I/S, "
                "such as RAS"
            )
        if self.spacing is not None and not all(np.isfinite(mm) and mm > 0 for mm in self.spacing):
            raise InputError(f"spacing must be millimetres > 0 along each axis, got {self.spacing}")
        if self.kind != NATIVE and (self.orientation or self.spacing or self.intensity != "unit"):
            raise InputError(f"orientation, spacing and intensity need grid 'native', not {self.kind!r}")


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image on the grid of the network.

    Attributes:
        data: float32 (X, Y, Z).
        affine: Of that grid.
        native: The image as it came.
    """

    data: Voxels
    affine: Affine
    native: Volume


def prepare(native: Volume, path: Path, grid: Grid) -> Prepared:
    """Bring an image to the grid of the network.

    Args:
        native: The image.
        path: Its file, which a bundle reads itself.
        grid: The grid.

    Returns:
        The image there.
    """
    if grid.kind == BUNDLE and grid.bundle is not None:
        return Prepared(*prepare_as_bundle(grid.bundle, path), native)
    if grid.kind == CONFORMED:
        conformed = conform(native)
        return Prepared(conformed.data.astype(np.float32) / np.float32(255.0), conformed.affine, native)
    shape, affine = _native_grid(native, grid)
    data = np.ascontiguousarray(native.data, dtype=np.float32)
    if shape != native.shape or not np.allclose(affine, native.affine):
        data = resample(data, native.affine, shape, affine, order=1)
    return Prepared(_scaled(data, grid.intensity), affine, native)


def restore(values: Voxels, prepared: Prepared, *, order: int = 0) -> Voxels:
    """Bring values back to the grid of the image.

    Args:
        values: On the grid of the network.
        prepared: The image there.
        order: 0 for the nearest neighbour (labels), 1 for linear interpolation (probabilities).

    Returns:
        The values, of the same type, on the image's own grid; 0 outside the network's.
    """
    native = prepared.native
    if values.shape == native.shape and np.allclose(prepared.affine, native.affine):
        return values
    return resample(values, prepared.affine, native.shape, native.affine, order=order)


def _native_grid(native: Volume, grid: Grid) -> tuple[tuple[int, int, int], Affine]:
    """Turn and rescale the grid of an image, axes kept along its own."""
    orientations = require_nibabel().orientations
    have = orientations.io_orientation(native.affine)
    if np.isnan(have).any():
        raise InputError("the image has no orientation: two of its axes point the same way")
    wanted = have if not grid.orientation else orientations.axcodes2ornt(tuple(grid.orientation))
    turn = orientations.ornt_transform(have, wanted)
    affine = native.affine @ orientations.inv_ornt_aff(turn, native.shape)
    shape = np.empty(3, dtype=int)
    shape[turn[:, 0].astype(int)] = native.shape
    if grid.spacing is not None:
        have_mm = np.linalg.norm(affine[:3, :3], axis=0)
        zoom = np.asarray(grid.spacing) / have_mm
        target = np.maximum(np.rint(shape / zoom), 1).astype(int)
        # The two boxes share their middle, so that nothing shifts by half a voxel.
        middle = affine[:3, :3] @ ((shape - 1) / 2) + affine[:3, 3]
        affine = affine.copy()
        affine[:3, :3] *= zoom
        affine[:3, 3] = middle - affine[:3, :3] @ ((target - 1) / 2)
        shape = target
    x, y, z = (int(size) for size in shape)
    return (x, y, z), affine


def _scaled(data: Voxels, intensity: str) -> Voxels:
    if intensity == "none":
        return data
    chosen = data[data > 0] if intensity == "unit" else data[data != 0]
    if not chosen.size:
        raise InputError("the image has no voxel above zero, so there is nothing to segment")
    if intensity == "unit":
        return np.clip(data / np.float32(np.quantile(chosen, _BRIGHT)), 0.0, 1.0)
    deviation = float(chosen.std()) or 1.0
    scaled = (data - np.float32(chosen.mean())) / np.float32(deviation)
    return np.where(data == 0, np.float32(0.0), scaled)


def _is_orientation(text: str) -> bool:
    found = sorted(next((axis for axis, pair in enumerate(_SIDES) if letter in pair), -1) for letter in text)
    return found == [0, 1, 2]
