"""What the demonstration segments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nansparse.imaging.conform import conform, conform_labels
from nansparse.imaging.nifti import load_volume
from nansparse.imaging.template import load_template, tissue_labels
from nansparse.imaging.volume import Volume, Voxels


@dataclass(frozen=True)
class Subject:
    """What is segmented.

    Attributes:
        name: For messages and file names.
        native: The image as it came.
        conformed: The image on the conformed grid, uint8.
        truth: Tissue labels on the conformed grid; None where nobody drew any.
    """

    name: str
    native: Volume
    conformed: Volume
    truth: Voxels | None


def load_subject(image: Path | None) -> Subject:
    """Load and conform an image.

    Args:
        image: A NIfTI or MGZ file; the MNI152 template when None.

    Returns:
        The subject.
    """
    if image is not None:
        native = load_volume(image)
        return Subject(image.name.split(".")[0], native, conform(native), None)
    template = load_template()
    truth = conform_labels(tissue_labels(template)).data
    return Subject("mni152", template.t1, conform(template.t1), truth)
