"""What the tissue network learns from and is judged on: the MNI152 template, and which slices are kept out.

The template is conformed and cut into coronal slices. Four slabs of eight slices are held out of training.
The input of a slice is the slice and three neighbours on either side, so the three slices before and after
each slab are not trained on either: no training input shows a held-out slice.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nansparse.imaging import conform, conform_labels, load_template, slabs, tissue_labels, to_slices
from nansparse.imaging.slices import THICKNESS
from nansparse.imaging.volume import Volume, Voxels

PLANE = "coronal"
# Conformed coronal slices, counted from back to front; the brain fills 39 to 219.
FIRST, LAST = 32, 226
SLAB_STARTS = (60, 100, 140, 180)
SLAB_SIZE = 8


def held_out_slices() -> list[int]:
    """List the slices kept out of training.

    Returns:
        Indices of conformed coronal slices, ascending.
    """
    return [start + i for start in SLAB_STARTS for i in range(SLAB_SIZE)]


def training_slices() -> list[int]:
    """List the slices trained on: around the brain, at a distance from every held-out slice.

    Returns:
        Indices of conformed coronal slices, ascending.
    """
    reach = THICKNESS // 2
    seen = {index + offset for index in held_out_slices() for offset in range(-reach, reach + 1)}
    return [index for index in range(FIRST, LAST + 1) if index not in seen]


@dataclass(frozen=True, eq=False)
class TissueData:
    """The conformed template with its labels.

    Args:
        image: Intensities, uint8, (256, 256, 256).
        labels: 0 background, 1 cerebrospinal fluid and other, 2 grey matter, 3 white matter; uint8, as image.
    """

    image: Volume
    labels: Volume

    def inputs(self, indices: list[int]) -> Tensor:
        """Stack slices with their neighbours.

        Args:
            indices: Which coronal slices.

        Returns:
            float32 in [0, 1], (N, 7, 256, 256).
        """
        return slabs(self.image.data, PLANE, indices)

    def targets(self, indices: list[int]) -> Tensor:
        """Look up the labels of slices.

        Args:
            indices: Which coronal slices.

        Returns:
            int64, (N, 256, 256).
        """
        stack: Voxels = to_slices(self.labels.data, PLANE)[indices]
        return torch.from_numpy(stack.astype("int64"))


def load_tissue_data() -> TissueData:
    """Load the template and conform it.

    Returns:
        Image and labels on the conformed grid.
    """
    template = load_template()
    return TissueData(conform(template.t1), conform_labels(tissue_labels(template)))
