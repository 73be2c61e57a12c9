"""What the 3D tissue network learns from and is judged on: the MNI152 template at 2 mm, and what is kept out.

The front of the brain is held out. Training crops end behind it, so that nothing of it is seen in training.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from nansparse.imaging.template import TISSUES
from nansparse.zoo.tissue_data import load_tissue_data

# Cells of 2 mm along the axis that grows to the front; the brain fills 19 to 109.
FIRST, HELD_OUT, LAST = 14, 88, 110
# Chances of a crop to get each kind of variation.
NOISE_CHANCE = 0.4
LEVEL_CHANCE = 0.15


def halve(image: Tensor) -> Tensor:
    """Take a volume at half its resolution.

    Args:
        image: uint8, (D, H, W), even sides, zero outside the brain.

    Returns:
        float32 in [0, 1], (1, 1, D / 2, H / 2, W / 2): averages of 2 x 2 x 2 cells, zero where any of the
        eight is: averages at the rim would mix in background.
    """
    volume = image.float()[None, None] / 255
    return F.avg_pool3d(volume, 2) * (F.max_pool3d(-volume, 2) < 0)


def load_tissue_volume() -> tuple[Tensor, Tensor]:
    """Load the conformed template at 2 mm.

    Returns:
        The image, as of `halve`, (1, 1, 128, 128, 128), and its labels as `nansparse.imaging.TISSUES`
        numbers them, int64, (1, 128, 128, 128): the tissue of most of the eight cells, background where the
        image is zero.
    """
    data = load_tissue_data()
    image = halve(torch.from_numpy(data.image.data.copy()))
    labels = torch.from_numpy(data.labels.data.astype("int64"))
    shares = F.avg_pool3d(F.one_hot(labels, len(TISSUES)).movedim(-1, 0).float(), 2)
    return image, (shares.argmax(0) * (image[0, 0] > 0))[None]


def tissue_crops(
    image: Tensor, labels: Tensor, *, steps: int, batch_size: int, crop: int, generator: Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw cubes from behind what is held out, mirrored and varied in contrast, brightness and noise.

    Args:
        image: (1, 1, D, H, W), in [0, 1], zero outside the brain.
        labels: int64, (1, D, H, W).
        steps: How many batches.
        batch_size: Cubes per batch.
        crop: Side of the cubes, at most HELD_OUT - FIRST.
        generator: Source of all randomness.

    Yields:
        Images (batch_size, 1, crop, crop, crop) and labels (batch_size, crop, crop, crop).
    """
    # Where cubes start: the brain is in the middle of the first two axes.
    margins = [(side - crop) // 4 for side in image.shape[2:4]]
    ends = [(margin, side - crop - margin) for margin, side in zip(margins, image.shape[2:4], strict=True)]
    ends.append((FIRST, HELD_OUT - crop))
    for _ in range(steps):
        images, targets = [], []
        for _ in range(batch_size):
            starts = [int(torch.randint(low, high + 1, (), generator=generator)) for low, high in ends]
            cube = tuple(slice(start, start + crop) for start in starts)
            found, truth = image[0, 0][cube], labels[0][cube]
            # The first axis runs from right to left: mirroring it swaps the hemispheres.
            if torch.rand((), generator=generator) < 0.5:
                found, truth = found.flip(0), truth.flip(0)
            images.append(_vary(found, generator)[None])
            targets.append(truth)
        yield torch.stack(images), torch.stack(targets)


def _vary(image: Tensor, generator: Generator) -> Tensor:
    """Change contrast and brightness, add noise in the brain, and now and then a level to the background."""
    inside = image > 0
    draws = torch.rand(6, generator=generator).tolist()
    varied = image ** (0.8 + 0.45 * draws[0]) * (0.75 + 0.33 * draws[1])
    if draws[2] < NOISE_CHANCE:
        varied = varied + 0.04 * draws[3] * torch.randn(image.shape, generator=generator)
    level = 0.25 * draws[4] if draws[5] < LEVEL_CHANCE else 0.0
    return torch.where(inside, varied.clamp(0.0, 1.0), level)
