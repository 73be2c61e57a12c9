"""Random variations of training slices: place, brightness, noise, and what lies outside the brain.

Images are stripped of the skull, so their background is exactly zero, and NaN pooling lives on that. Every
variation therefore leaves zeros zero, but for a few samples whose background is changed on purpose: the
network has to label the background 0 whatever is in it, because a run that marks background as NaN puts local
means in its place. All tensors are (N, C, H, W) float32 in [0, 1]; randomness comes from the generator alone.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

# Chances of a sample to get each kind of variation.
INTENSITY_CHANCE = 0.6
NOISE_CHANCE = 0.4
BLUR_CHANCE = 0.1
LEVEL_CHANCE = 0.1
REPLACED_CHANCE = 0.12
NOISY_BACKGROUND_CHANCE = 0.06


def augment(images: Tensor, labels: Tensor, *, crop: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Vary a batch.

    Args:
        images: Slabs, (N, C, H, W).
        labels: int64, (N, H, W).
        crop: Side of the square that is cut out.
        generator: Source of all randomness.

    Returns:
        Images (N, C, crop, crop) and labels (N, crop, crop).
    """
    images, labels = _move(images, labels, crop, generator)
    inside = images > 0
    varied = _chosen(len(images), INTENSITY_CHANCE, generator)
    images = torch.where(varied, _vary_intensity(images, generator), images)
    images = torch.where(inside, images, 0.0).clamp(0.0, 1.0)
    return _vary_background(images, labels, inside, generator), labels


def _move(images: Tensor, labels: Tensor, crop: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Rotate, scale, shift, mirror and crop.

    Args:
        images: (N, C, H, W).
        labels: (N, H, W).
        crop: Side of the result.
        generator: Source of randomness.

    Returns:
        Images and labels. Background stays exactly zero: interpolation does not bleed into it.
    """
    n, _, height, width = images.shape
    angle = _between(n, -0.2, 0.2, generator)
    scale = _between(n, 0.87, 1.15, generator)
    # H runs from right to left: mirroring it swaps the hemispheres.
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    # Centres are drawn around the middle; some crops show more background than brain.
    shift = torch.randn((2, n), generator=generator) * 0.2
    rows, columns = crop / height * scale, crop / width * scale
    cos, sin = torch.cos(angle), torch.sin(angle)
    # grid_sample counts (x, y) = (width, height), both from -1 to 1.
    theta = torch.stack(
        [
            torch.stack([columns * cos, -rows * sin * mirror, shift[0]], dim=1),
            torch.stack([columns * sin, rows * cos * mirror, shift[1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [n, 1, crop, crop], align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    inside = F.grid_sample((images > 0).float(), grid, mode="nearest", align_corners=False)
    moved_labels = F.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)
    return moved * inside, moved_labels[:, 0].long()


def _vary_intensity(images: Tensor, generator: Generator) -> Tensor:
    """Change contrast and brightness, blur, and add a bias field and noise.

    Args:
        images: (N, C, H, W).
        generator: Source of randomness.

    Returns:
        Images of the same shape; the background is not kept.
    """
    n, _, height, width = images.shape
    gamma = torch.exp(_between(n, -0.25, 0.25, generator))
    images = images.clamp(min=1e-4) ** _each(gamma)
    coarse = torch.randn((n, 1, 3, 3), generator=generator) * _each(_between(n, 0.0, 0.15, generator))
    field = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    images = images * torch.exp(field) * _each(_between(n, 0.75, 1.08, generator))
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = torch.where(_chosen(n, BLUR_CHANCE, generator), 0.5 * (images + blurred), images)
    spread = _each(_between(n, 0.0, 0.04, generator)) * _chosen(n, NOISE_CHANCE, generator)
    return images + spread * torch.randn(images.shape, generator=generator)


def _vary_background(images: Tensor, labels: Tensor, inside: Tensor, generator: Generator) -> Tensor:
    """Change what lies outside the brain in a few samples.

    Args:
        images: (N, C, H, W), zero outside.
        labels: (N, H, W).
        inside: Where the images are not background, as images.
        generator: Source of randomness.

    Returns:
        Images of the same shape.
    """
    n, _, height, width = images.shape
    # One level for the whole background of a slab.
    level = _each(_between(n, 0.0, 0.25, generator)) * _chosen(n, LEVEL_CHANCE, generator)
    images = torch.where(inside, images, level)
    noise = _each(_between(n, 0.0, 0.04, generator)) * _chosen(n, NOISY_BACKGROUND_CHANCE, generator)
    images = images + noise * torch.randn(images.shape, generator=generator).abs()
    # Everything farther from the brain than some margin, replaced by a smooth field of any brightness.
    margin = int(torch.randint(2, 12, (), generator=generator))
    brain = (labels > 0).float()[:, None]
    near = F.max_pool2d(brain, 2 * margin + 1, stride=1, padding=margin) > 0
    coarse = torch.rand((n, 1, 4, 4), generator=generator)
    field = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
    replaced = _chosen(n, REPLACED_CHANCE, generator) & ~near & ~inside
    return torch.where(replaced, field, images).clamp(0.0, 1.0)


def _between(n: int, low: float, high: float, generator: Generator) -> Tensor:
    """Draw one number per sample, uniformly.

    Args:
        n: Samples.
        low: The least.
        high: What they stay below.
        generator: Source of randomness.

    Returns:
        Shape (n,).
    """
    return low + (high - low) * torch.rand(n, generator=generator)


def _each(values: Tensor) -> Tensor:
    """Shape one value per sample to meet (N, C, H, W).

    Args:
        values: Shape (n,).

    Returns:
        Shape (n, 1, 1, 1).
    """
    return values.view(-1, 1, 1, 1)


def _chosen(n: int, chance: float, generator: Generator) -> Tensor:
    """Choose samples at random.

    Args:
        n: Samples.
        chance: Of each to be chosen.
        generator: Source of randomness.

    Returns:
        Booleans, (n, 1, 1, 1).
    """
    return _each(torch.rand(n, generator=generator) < chance)
