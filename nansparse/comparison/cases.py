"""Which volumes are compared: files, folders, BIDS trees, or the MNI152 template; and their truth."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nansparse.errors import InputError
from nansparse.imaging.nifti import load_volume
from nansparse.imaging.template import TISSUES, load_template, tissue_labels
from nansparse.imaging.volume import Volume
from nansparse.prediction.jobs import is_image

TEMPLATE = "mni152"
_BIDS_MARK = "dataset_description.json"


@dataclass(frozen=True)
class Case:
    """One volume to compare on.

    Attributes:
        name: Unique among the cases.
        image: Its file; None for the MNI152 template.
        truth: A label volume (segmentation) or image (regression) that says what is right; None if nobody
            knows. The template brings its own tissue labels.
        true_class: The right class (classification), or None.
    """

    name: str
    image: Path | None
    truth: Path | None = None
    true_class: int | None = None

    def load(self) -> tuple[Volume, Volume | None]:
        """Read the image and its truth.

        Returns:
            Both; None for the truth where there is none.
        """
        if self.image is None:
            template = load_template()
            return template.t1, tissue_labels(template)
        return load_volume(self.image), None if self.truth is None else load_volume(self.truth)

    @property
    def label_names(self) -> dict[int, str]:
        """What labels are called, where that is known."""
        return dict(enumerate(TISSUES)) if self.image is None else {}


def find_cases(paths: Sequence[Path], *, truth: Path | None = None, suffix: str = "T1w") -> list[Case]:
    """Find the volumes that a user named.

    Args:
        paths: Images, folders of images, BIDS trees; the MNI152 template when empty.
        truth: The truth of one image, or a folder with one of each image's name (in a tree: the same path),
            or for a classification a CSV file of lines `name,class`.
        suffix: Of the images in a BIDS tree.

    Returns:
        The cases in order, none twice.

    Raises:
        InputError: If something is missing or holds no image, or two images have one name.
    """
    if not paths:
        if truth is not None:
            raise InputError("--truth goes with images; the MNI152 template has its own")
        return [Case(TEMPLATE, None)]
    images = dict.fromkeys((image, root) for path in paths for image, root in _images(path, suffix))
    if truth is not None and not truth.exists():
        raise InputError(f"no truth at {truth}")
    if truth is not None and truth.is_file() and is_image(truth) and len(images) > 1:
        raise InputError(f"one truth, {truth.name}, for {len(images)} images: name a folder")
    classes = _read_classes(truth) if truth is not None and truth.suffix == ".csv" else {}
    cases = []
    for image, root in images:
        name = image.relative_to(root).as_posix()
        right = None if classes else truth / name if truth is not None and truth.is_dir() else truth
        if classes and name not in classes:
            raise InputError(f"no class for {name} in {truth}")
        cases.append(Case(name, image, right, classes.get(name)))
    names = [case.name for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two images are called {twice}: results could not be told apart")
    return cases


def _images(path: Path, suffix: str) -> list[tuple[Path, Path]]:
    """List images with the folder that their names are relative to."""
    if path.is_file():
        return [(path, path.parent)]
    if not path.is_dir():
        raise InputError(f"no image at {path}")
    if (path / _BIDS_MARK).is_file():
        found = sorted(image for image in path.glob(f"sub-*/**/*_{suffix}.*") if is_image(image))
        if not found:
            raise InputError(f"no image *_{suffix}.nii.gz in the BIDS tree {path}: see --suffix")
    else:
        found = sorted(image for image in path.iterdir() if is_image(image) and image.is_file())
        if not found:
            raise InputError(f"no NIfTI or MGH image in the folder {path}")
    return [(image, path) for image in found]


def _read_classes(path: Path) -> dict[str, int]:
    """Read lines `name,class`; a first line without a number is a heading."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in csv.reader(file) if line]
    classes = {}
    for number, line in enumerate(lines):
        if len(line) >= 2 and line[1].strip().isdecimal():
            classes[line[0].strip()] = int(line[1])
        elif number:
            raise InputError(
                f"{path.name}: expected lines name,class with a whole number, got {','.join(line)!r}"
            )
    if not classes:
        raise InputError(f"{path.name} holds no line name,class")
    return classes
