"""Brain images: NIfTI files, the conformed grid, slices for 2D networks, the MNI152 template."""

from nansparse.imaging.conform import conform, conform_labels, restore_labels
from nansparse.imaging.nifti import load_volume, save_labels
from nansparse.imaging.slices import from_slices, slabs, to_slices
from nansparse.imaging.template import TISSUES, Template, load_template, tissue_labels
from nansparse.imaging.volume import Volume

__all__ = [
    "TISSUES",
    "Template",
    "Volume",
    "conform",
    "conform_labels",
    "from_slices",
    "load_template",
    "load_volume",
    "restore_labels",
    "save_labels",
    "slabs",
    "tissue_labels",
    "to_slices",
]
