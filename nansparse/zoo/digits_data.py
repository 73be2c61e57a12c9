"""The digits that scikit-learn carries: 1797 images of 8 x 8, framed as MNIST frames its digits."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.errors import InputError

SIDE, BOX = 28, 20
# The data set keeps the order of its source, where the last images are of writers that the first ones are not
# (scikit-learn's documentation): keeping the end out is harder than a random split.
HELD_OUT = 797


class Digits(NamedTuple):
    """Images and what they show.

    Attributes:
        images: float32 (N, 1, 28, 28), in [0, 1], black background.
        labels: int64 (N,), 0 to 9.
    """

    images: Tensor
    labels: Tensor


def load_digits(*, held_out: bool) -> Digits:
    """Load the digits.

    Args:
        held_out: Whether to give the last 797 images, which training never sees, or the others.

    Returns:
        The digits.

    Raises:
        InputError: If scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise InputError("the digits come with scikit-learn: pip install 'nansparse[demo]'") from error
    data = load()
    images = torch.from_numpy(data.images).float()[:, None] / 16
    chosen = slice(-HELD_OUT, None) if held_out else slice(None, -HELD_OUT)
    # 20 x 20 on 28 x 28. Enlarged zeros stay zeros, and constant background is what NaN pooling lives on.
    enlarged = F.interpolate(images[chosen], size=(BOX, BOX), mode="bilinear", align_corners=False)
    framed = F.pad(enlarged, [(SIDE - BOX) // 2] * 4)
    return Digits(framed, torch.from_numpy(data.target)[chosen])
