"""What the denoiser learns from and is judged on: the MNI152 template with Rician noise added.

The magnitude image of an MR scan is the length of two noisy components, so its noise is Rician: sqrt((s +
a)^2 + b^2), a and b normal. In the empty background this leaves noise of positive mean, which neither ties
nor is constant: whoever wants to mark the background needs a mask, or an image whose background was set to
zero after the noise came in, as skull stripping does. Both kinds are drawn here.

The slices kept out of training are those of `nansparse.zoo.tissue_data`, guards included.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from nansparse.zoo.tissue_data import TissueData, training_slices

# Standard deviation of the noise relative to the brightest tissue.
LARGEST_LEVEL = 0.1
# Share of the training crops whose background is set to zero after the noise came in.
STRIPPED_CHANCE = 0.5


def add_rician_noise(images: Tensor, level: float | Tensor, generator: Generator) -> Tensor:
    """Add Rician noise (Gudbjartsson and Patz, Magnetic Resonance in Medicine 34, 1995).

    Args:
        images: Intensities without noise, floating point, any shape.
        level: Standard deviation of each component, in the units of the images; a tensor is broadcast.
        generator: Source of randomness.

    Returns:
        Noisy images of the same shape and type, 0 or more.
    """
    real, imaginary = (
        torch.randn(images.shape, generator=generator, dtype=images.dtype) * level for _ in range(2)
    )
    return torch.hypot(images + real, imaginary)


def denoising_batches(
    data: TissueData, steps: int, batch_size: int, crop: int, generator: Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw noisy crops and what they were before.

    Args:
        data: The conformed template.
        steps: How many batches.
        batch_size: Crops per batch.
        crop: Side of the crops.
        generator: Source of randomness.

    Yields:
        Noisy slabs (N, 7, crop, crop) and their middle slices without noise (N, 1, crop, crop).
    """
    indices = training_slices()
    slabs = data.inputs(indices)
    middle = slabs.shape[1] // 2
    for _ in range(steps):
        drawn = torch.randint(len(indices), (batch_size,), generator=generator)
        clean = torch.stack([_cut(slabs[number], crop, generator) for number in drawn.tolist()])
        # Contrast and brightness vary, zeros stay zeros.
        gamma, gain = (_each(batch_size, *ends, generator) for ends in ((0.7, 1.4), (0.6, 1.0)))
        clean = clean**gamma * gain
        noisy = add_rician_noise(clean, _each(batch_size, 0.0, LARGEST_LEVEL, generator), generator)
        stripped = torch.rand((batch_size, 1, 1, 1), generator=generator) < STRIPPED_CHANCE
        yield noisy.masked_fill_(stripped & (clean == 0), 0.0), clean[:, middle : middle + 1]


def _cut(slab: Tensor, crop: int, generator: Generator) -> Tensor:
    """Cut a square out of a slab, anywhere around the brain; mirror it, and turn it by quarters."""
    where = (slab != 0).any(0).nonzero()
    chosen = int(torch.randint(max(len(where), 1), (), generator=generator))
    centre = where[chosen] if len(where) else where.new_zeros(2)
    rows, columns = (
        slice(start, start + crop)
        for start in (
            max(0, min(int(at) - crop // 2, side - crop))
            for at, side in zip(centre, slab.shape[1:], strict=True)
        )
    )
    turns, mirrored = torch.randint(4, (2,), generator=generator).tolist()
    cut = torch.rot90(slab[:, rows, columns], turns, (1, 2))
    return cut.flip(2) if mirrored % 2 else cut


def _each(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """Draw one number a sample, uniformly: (count, 1, 1, 1)."""
    return low + (high - low) * torch.rand((count, 1, 1, 1), generator=generator)
