"""Reading images (NIfTI, MGZ) and writing label volumes; one clear line for every file that will not do."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from nansparse.errors import InputError
from nansparse.imaging.atomic import whole_file
from nansparse.imaging.volume import Affine, Volume, Voxels

ENDINGS = (".nii", ".nii.gz", ".mgh", ".mgz")
# Below this, in cubic millimetres, a voxel has no volume worth the name: the affine is flat or empty.
_SMALLEST_VOXEL = 1e-9


def load_volume(path: str | Path) -> Volume:
    """Read a 3D image.

    Args:
        path: A NIfTI or MGH file, `.nii`, `.nii.gz`, `.mgh` or `.mgz`.

    Returns:
        The volume; voxels keep the type they have in the file, scaled ones are float32.

    Raises:
        InputError: If the file is missing or no such image, is not 3D, holds no real finite numbers, or does
            not say where its voxels are.
    """
    path = Path(path)
    image = _open(path)
    # A single time point or channel is no fourth dimension.
    shape = tuple(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or 0 in shape:
        raise InputError(f"{path.name} is not a 3D image: its shape is {tuple(image.shape)}")
    if np.dtype(image.header.get_data_dtype()).kind not in "iuf":
        raise InputError(f"{path.name} holds {image.header.get_data_dtype()} voxels; expected real numbers")
    _check_placed(image, path.name)
    data = _read(image, path.name).reshape(shape)
    _check_finite(data, path.name)
    return Volume(data, np.asarray(image.affine, dtype=np.float64), image.header)


def save_labels(labels: Voxels, like: Volume, path: str | Path) -> None:
    """Write a label volume in the place of another volume's voxels: same affine, same header.

    The file appears when it is complete; a writer that fails leaves what was there before.

    Args:
        labels: Non-negative whole numbers, of the shape of `like`.
        like: The volume that was labelled.
        path: Where to; `.nii`, `.nii.gz`, `.mgh` or `.mgz`.

    Raises:
        InputError: If labels are no whole numbers or of another shape, or the path cannot be written.
    """
    nibabel = require_nibabel()
    path = Path(path)
    if not path.name.endswith(ENDINGS):
        raise InputError(f"cannot write {path.name}: expected a name ending in {', '.join(ENDINGS)}")
    if labels.shape != like.shape:
        raise InputError(f"labels have the shape {labels.shape}, the image {like.shape}")
    if labels.dtype.kind not in "iub":
        raise InputError(f"labels must be whole numbers, got {labels.dtype}")
    kind = nibabel.MGHImage if path.name.endswith((".mgh", ".mgz")) else nibabel.Nifti1Image
    image = kind(labels.astype(_label_type(labels, path.name)), like.affine, like.header)
    image.set_data_dtype(image.dataobj.dtype)
    if kind is nibabel.Nifti1Image:
        # The display window of the intensities would show labels as uniformly dark.
        image.header["cal_min"] = image.header["cal_max"] = 0
    with whole_file(path) as unfinished:
        nibabel.save(image, unfinished)


def require_nibabel() -> Any:
    """Import nibabel.

    Returns:
        The module.

    Raises:
        InputError: If it is not installed; the message says how to install it.
    """
    try:
        import nibabel
    except ImportError as error:
        raise InputError("images need nibabel and scipy: pip install 'nansparse[imaging]'") from error
    return nibabel


def check_affine(affine: Affine, name: str) -> None:
    """Check that an affine places every voxel somewhere of its own.

    Args:
        affine: From voxel indices to millimetres, (4, 4).
        name: What to call the image in the error.

    Raises:
        InputError: If it holds non-finite numbers or maps the volume onto a plane, a line or a point.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise InputError(f"{name} has a broken affine: {np.asarray(affine).tolist()}")
    if abs(np.linalg.det(affine[:3, :3])) < _SMALLEST_VOXEL:
        raise InputError(f"{name} has a degenerate affine (voxels without volume): {affine[:3].tolist()}")


def _open(path: Path) -> Any:
    """Open an image without reading its voxels.

    Args:
        path: The file.

    Returns:
        nibabel's image.

    Raises:
        InputError: If it is missing or neither NIfTI nor MGH.
    """
    nibabel = require_nibabel()
    if not path.is_file():
        raise InputError(f"no image at {path}" + (": it is a folder" if path.is_dir() else ""))
    try:
        image = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path.name} is not a readable image: {error}") from error
    if not isinstance(image, (nibabel.Nifti1Image, nibabel.Nifti1Pair, nibabel.MGHImage)):
        raise InputError(
            f"{path.name} is a {type(image).__name__}; expected NIfTI or MGH ({', '.join(ENDINGS)})"
        )
    return image


def _read(image: Any, name: str) -> Voxels:
    """Read the voxels.

    Args:
        image: nibabel's image.
        name: What to call it in the error.

    Returns:
        The voxels in native byte order; float64 becomes float32.

    Raises:
        InputError: If the file is cut short or damaged.
    """
    try:
        data = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{name} is damaged or cut short: {error}") from error
    native = np.dtype(np.float32) if data.dtype.kind == "f" else data.dtype.newbyteorder("=")
    # A number too large for float32 turns infinite here and is reported as such.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(data, dtype=native)


def _check_placed(image: Any, name: str) -> None:
    """Check that the file itself says where its voxels are.

    Args:
        image: nibabel's image.
        name: What to call it in the error.

    Raises:
        InputError: If nibabel had to invent the affine, or it is degenerate.
    """
    header = image.header
    if "sform_code" in header and not (int(header["sform_code"]) or int(header["qform_code"])):
        raise InputError(
            f"{name} has no affine (sform_code and qform_code are 0): left and right are unknown"
        )
    check_affine(np.asarray(image.affine, dtype=np.float64), name)


def _check_finite(data: Voxels, name: str) -> None:
    """Check that every voxel is a finite number.

    Args:
        data: Voxels.
        name: What to call the image in the error.

    Raises:
        InputError: If some are NaN or infinite; the message counts them and names the first.
    """
    if data.dtype.kind != "f" or bool(np.isfinite(data).all()):
        return
    nans, infinities = int(np.isnan(data).sum()), int(np.isinf(data).sum())
    first = tuple(int(i) for i in np.argwhere(~np.isfinite(data))[0])
    raise InputError(
        f"{name} holds {nans} NaN and {infinities} infinite voxels (the first at {first}); "
        "replace them, for example by 0, before segmenting"
    )


def _label_type(labels: Voxels, name: str) -> type:
    """Find the smallest type that holds the labels and that every viewer reads.

    Args:
        labels: Whole numbers.
        name: What to call the file in the error.

    Returns:
        uint8, int16 or int32.

    Raises:
        InputError: If labels are negative or too large.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    for kind in (np.uint8, np.int16, np.int32):
        if low >= 0 and high <= np.iinfo(kind).max:
            return kind
    raise InputError(f"cannot write {name}: labels go from {low} to {high}, expected 0 to {2**31 - 1}")
