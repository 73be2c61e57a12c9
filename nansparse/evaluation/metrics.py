"""How well two label maps agree: overlap, volume, distance between surfaces.

One rule for labels that are empty or missed, so that none is ever dropped from a mean:

=====================  ====  ===================  ========================  =================
label in               Dice  HD95, mean distance  volume difference         its percentage
=====================  ====  ===================  ========================  =================
neither map            1     0 mm                 0 mm3                     0
one of the maps only   0     the grid's diagonal  the volume of the label   -100, or +100
=====================  ====  ===================  ========================  =================

The diagonal is the largest distance that two voxels of the grid can have.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nansparse.errors import InputError
from nansparse.evaluation.surface import diagonal, joint_box, surface_distances
from nansparse.imaging.volume import Affine

Labels = npt.NDArray[np.integer] | torch.Tensor


def dice(a: Labels, b: Labels, labels: Iterable[int]) -> dict[int, float]:
    """Compute the Dice overlap of two label maps, 2 |A and B| / (|A| + |B|), for each label.

    Args:
        a: Whole numbers, any shape.
        b: Whole numbers, the same shape.
        labels: Which labels to compare.

    Returns:
        The overlap, in [0, 1], by label. A label that neither map holds counts as full agreement, 1.0.
    """
    first, second = _pair(a, b)
    overlaps = {}
    for label in labels:
        in_first, in_second = first == label, second == label
        total = int(in_first.sum()) + int(in_second.sum())
        overlaps[int(label)] = 2 * int((in_first & in_second).sum()) / total if total else 1.0
    return overlaps


def disagreeing(a: Labels, b: Labels) -> int:
    """Count the voxels that two label maps label differently.

    Args:
        a: Whole numbers, any shape.
        b: Whole numbers, the same shape.

    Returns:
        The number of voxels.
    """
    first, second = _pair(a, b)
    return int((first != second).sum())


def compare_labels(
    labels: Labels, reference: Labels, numbers: Iterable[int], affine: Affine
) -> dict[int, dict[str, float]]:
    """Compare a segmentation with a reference, label by label.

    Args:
        labels: Whole numbers, (X, Y, Z).
        reference: Whole numbers, the same shape.
        numbers: Which labels to compare.
        affine: Of both, from voxel indices to millimetres, (4, 4).

    Returns:
        By label: "dice", "hd95_mm" (the larger of the two directed 95th percentiles), "mean_distance_mm"
        (average symmetric surface distance), "volume_difference_mm3" (labels - reference) and
        "volume_difference_percent" (of the reference). Empty and missed labels follow the rule of this
        module.

    Raises:
        InputError: If the maps are not 3D.
    """
    first, second = _pair(labels, reference)
    if first.ndim != 3:
        raise InputError(f"distances need 3D label maps, got the shape {first.shape}")
    wanted = list(numbers)
    longest = diagonal(first.shape, affine)
    # Everything happens where either map holds one of the labels.
    box = joint_box(np.isin(first, wanted) | np.isin(second, wanted)) or (slice(0, 1),) * 3
    first, second = first[box], second[box]
    cell = abs(float(np.linalg.det(affine[:3, :3])))
    found = {}
    for number in wanted:
        inside, truth = first == number, second == number
        volume, expected = int(inside.sum()), int(truth.sum())
        hd95, mean = surface_distances(inside, truth, affine, longest)
        change = (volume - expected) / expected if expected else float(volume > 0)
        found[int(number)] = {
            "dice": 2 * int((inside & truth).sum()) / (volume + expected) if volume + expected else 1.0,
            "hd95_mm": hd95,
            "mean_distance_mm": mean,
            "volume_difference_mm3": cell * (volume - expected),
            "volume_difference_percent": 100.0 * change,
        }
    return found


def mean_over_labels(by_label: dict[Any, dict[str, float]]) -> dict[str, float]:
    """Average each measure over the labels, every label once; differences of volume by their size.

    Args:
        by_label: What `compare_labels` gives; at least one label.

    Returns:
        Measure to mean. Volume differences would cancel, so their absolute values are averaged.
    """
    names = next(iter(by_label.values()))
    return {
        name: float(
            np.mean([abs(m[name]) if name.startswith("volume") else m[name] for m in by_label.values()])
        )
        for name in names
    }


def _pair(a: Labels, b: Labels) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Bring two label maps to numpy.

    Args:
        a: One map.
        b: The other.

    Returns:
        Both as arrays.

    Raises:
        InputError: If their shapes differ, or one does not hold whole numbers (NaN has no label).
    """
    first, second = (
        x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x) for x in (a, b)
    )
    if first.shape != second.shape:
        raise InputError(f"label maps must have one shape, got {first.shape} and {second.shape}")
    for array in (first, second):
        if array.dtype.kind not in "iub":
            raise InputError(f"label maps must hold whole numbers, got {array.dtype}")
    return first, second
