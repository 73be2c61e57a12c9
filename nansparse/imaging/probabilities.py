"""Writing probabilities: a 4D image on the grid of the image that was segmented, one volume per class."""

from pathlib import Path

import numpy as np

from nansparse.errors import InputError
from nansparse.imaging.atomic import whole_file
from nansparse.imaging.nifti import ENDINGS, require_nibabel
from nansparse.imaging.volume import Volume, Voxels


def save_probabilities(probabilities: Voxels, like: Volume, path: str | Path) -> None:
    """Write probabilities with the affine and header of the image they belong to.

    The file appears when it is complete; a writer that fails leaves what was there before.

    Args:
        probabilities: Real numbers, (X, Y, Z, classes), of the grid of `like`.
        like: The volume that was segmented.
        path: Where to; `.nii`, `.nii.gz`, `.mgh` or `.mgz`.

    Raises:
        InputError: If the grid is another one, or the path cannot be written.
    """
    nibabel = require_nibabel()
    path = Path(path)
    if not path.name.endswith(ENDINGS):
        raise InputError(f"cannot write {path.name}: expected a name ending in {', '.join(ENDINGS)}")
    if probabilities.ndim != 4 or probabilities.shape[:3] != like.shape:
        raise InputError(f"probabilities have the shape {probabilities.shape}, the image {like.shape}")
    kind = nibabel.MGHImage if path.name.endswith((".mgh", ".mgz")) else nibabel.Nifti1Image
    image = kind(probabilities.astype(np.float32), like.affine, like.header)
    image.set_data_dtype(np.float32)
    if kind is nibabel.Nifti1Image:
        image.header["cal_min"], image.header["cal_max"] = 0, 1
    with whole_file(path) as unfinished:
        nibabel.save(image, unfinished)
