"""A volume: voxels with their place in the world. The one form in which images are passed around."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Voxels = npt.NDArray[Any]
Affine = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels, axis order (X, Y, Z) as stored in the file, and the affine that places them.

    Args:
        data: Real numbers, (X, Y, Z).
        affine: From voxel indices to millimetres, x to the right, y to the front, z upwards, (4, 4).
        header: The header of the file it was read from, or None; written back with whatever replaces the
            voxels.
    """

    data: Voxels
    affine: Affine
    header: Any = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the three axes."""
        x, y, z = self.data.shape
        return x, y, z

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in millimetres, one per axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)
