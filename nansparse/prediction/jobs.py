"""From what the user named to one job a volume: which images, and which files each gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from nansparse.errors import InputError
from nansparse.imaging.nifti import ENDINGS
from nansparse.prediction.volume import Job

LABELS, PROBABILITIES = "labels", "probabilities"


def plan_jobs(inputs: Sequence[Path], output: Path, *, probabilities: bool = False) -> list[Job]:
    """Find the images and name their outputs.

    Args:
        inputs: Images, and folders whose images are taken.
        output: A file (one image only), or the folder of `NAME_labels` files.
        probabilities: Whether probabilities are written too.

    Returns:
        One job an image, in order, none twice.

    Raises:
        InputError: If an input is missing, a folder holds no image, or two images would give one file.
    """
    images = list(dict.fromkeys(image for path in inputs for image in _images(path)))
    if is_image(output):
        if len(images) > 1:
            raise InputError(f"{len(images)} images cannot be written to one file, {output}: name a folder")
        jobs = [Job(images[0], output, _beside(output) if probabilities else None)]
    else:
        if output.exists() and not output.is_dir():
            raise InputError(f"the output must be a folder or an image's name ({_endings()}), got {output}")
        # A second run in the images' own folder must not take the first one's labels for images.
        made = {output / _name(image, kind) for image in images for kind in (LABELS, PROBABILITIES)}
        images = [image for image in images if image not in made]
        jobs = [
            Job(
                image,
                output / _name(image, LABELS),
                output / _name(image, PROBABILITIES) if probabilities else None,
            )
            for image in images
        ]
    _check_apart(jobs)
    return jobs


def is_image(path: Path) -> bool:
    """Say whether a name is that of an image.

    Args:
        path: Any path.

    Returns:
        True if it ends as NIfTI and MGH files do.
    """
    return path.name.endswith(ENDINGS)


def _images(path: Path) -> Iterable[Path]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if is_image(file) and file.is_file())
        if not found:
            raise InputError(f"no image in the folder {path}: expected files ending in {_endings()}")
        return found
    if not path.is_file():
        raise InputError(f"no image at {path}")
    return [path]


def _check_apart(jobs: list[Job]) -> None:
    images = {job.image.resolve() for job in jobs}
    taken: dict[Path, Path] = {}
    for job in jobs:
        for path in (job.labels, job.probabilities):
            if path is not None and path.resolve() in images:
                raise InputError(f"{path} would overwrite an input: name another output")
        if job.labels in taken:
            raise InputError(
                f"{taken[job.labels]} and {job.image} would both be written to {job.labels}: "
                "run them apart, into folders of their own"
            )
        taken[job.labels] = job.image


def _name(image: Path, kind: str) -> str:
    ending = _ending(image)
    return f"{image.name[: -len(ending)]}_{kind}{ending}"


def _beside(labels: Path) -> Path:
    ending = _ending(labels)
    return labels.with_name(
        f"{labels.name[: -len(ending)].removesuffix('_' + LABELS)}_{PROBABILITIES}{ending}"
    )


def _ending(path: Path) -> str:
    # The longest that fits: .nii.gz before .gz would, were it one.
    return max((ending for ending in ENDINGS if path.name.endswith(ending)), key=len)


def _endings() -> str:
    return ", ".join(ENDINGS)
