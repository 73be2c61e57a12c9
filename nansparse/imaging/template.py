"""The MNI152 template that nilearn carries inside its wheel: T1 image, mask, tissue maps. No download."""

from dataclasses import dataclass

import numpy as np

from nansparse.errors import InputError
from nansparse.imaging.volume import Volume

# A tissue label is its place in this list.
TISSUES = ("background", "csf", "grey", "white")


@dataclass(frozen=True, eq=False)
class Template:
    """The skull-stripped ICBM152 2009 T1 template at 1 mm and its maps, all on one grid.

    Args:
        t1: Intensities in [0, 1], zero outside the head.
        brain_mask: 1 inside the brain, 0 outside.
        grey: Probability of grey matter.
        white: Probability of white matter.
    """

    t1: Volume
    brain_mask: Volume
    grey: Volume
    white: Volume


def load_template() -> Template:
    """Load the template at 1 mm.

    Returns:
        The image and its maps, (197, 233, 189) each.

    Raises:
        InputError: If nilearn is not installed; the message says how to install it.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        raise InputError("the MNI152 template comes with nilearn: pip install 'nansparse[demo]'") from error
    loaders = (
        datasets.load_mni152_template,
        datasets.load_mni152_brain_mask,
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
    )
    images = [load(resolution=1) for load in loaders]
    t1, mask, grey, white = (
        Volume(np.asanyarray(image.dataobj), np.asarray(image.affine, dtype=np.float64), image.header)
        for image in images
    )
    return Template(t1, mask, grey, white)


def tissue_labels(template: Template) -> Volume:
    """Turn the maps into one label per voxel, the most probable tissue.

    Args:
        template: Mask and maps.

    Returns:
        uint8: 0 outside the brain mask; inside it 1 cerebrospinal fluid and all that is neither grey nor
        white, 2 grey matter, 3 white matter.
    """
    grey, white = template.grey.data, template.white.data
    other = 1.0 - grey - white
    labels = 1 + np.argmax(np.stack([other, grey, white]), axis=0)
    inside = template.brain_mask.data > 0
    return Volume(np.where(inside, labels, 0).astype(np.uint8), template.t1.affine, template.t1.header)
