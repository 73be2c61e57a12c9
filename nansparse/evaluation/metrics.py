"""How well two label maps agree."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from nansparse.errors import InputError

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
