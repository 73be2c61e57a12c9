"""Training the tissue network on the MNI152 template: one command, one seed, a few minutes on two cores.

``nansparse zoo train --output weights.safetensors --seed 0``

The slices that `nansparse.zoo.tissue_data` holds out are never shown, neither as targets nor as neighbours.
The same seed gives the same weights on the same processor, torch version and number of threads.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from nansparse.errors import InputError
from nansparse.zoo.augmentation import augment
from nansparse.zoo.fastsurfer import STRIDE, initialise
from nansparse.zoo.fitting import Schedule, fit, has_bfloat16
from nansparse.zoo.tissue import NUM_FILTERS, new_tissue_model
from nansparse.zoo.tissue_data import TissueData, load_tissue_data, training_slices
from nansparse.zoo.weights_file import checked_output, save_weights, threads_of


def train_tissue_model(
    output: str | Path,
    *,
    seed: int = 0,
    num_filters: int = NUM_FILTERS,
    steps: int = 420,
    batch_size: int = 8,
    crop: int = 112,
    learning_rate: float = 4e-3,
    threads: int = 2,
    progress: bool = True,
) -> None:
    """Train the tissue network and write its weights; nothing is written before training is complete.

    Args:
        output: Where the weights go, a `.safetensors` file in an existing folder.
        seed: Of the initial weights and of every augmentation; the caller's random state is left alone.
        num_filters: Width of the network; FastSurfer's is 71.
        steps: Optimiser steps.
        batch_size: Slices per step.
        crop: Side of the squares cut out of the slices, a multiple of 16.
        learning_rate: The peak of a one-cycle schedule.
        threads: CPU threads to use; restored afterwards.
        progress: Whether to show a progress bar.

    Raises:
        InputError: If a number makes no sense or the output cannot be written.
    """
    counts = {"num_filters": num_filters, "steps": steps, "batch_size": batch_size}
    path = checked_output(output, **counts, crop=crop, threads=threads)
    if crop % STRIDE:
        raise InputError(f"crop must be a multiple of {STRIDE}, got {crop}")
    generator = torch.Generator().manual_seed(seed)
    model = new_tissue_model(num_filters)
    initialise(model, generator)
    with threads_of(threads):
        batches = _batches(load_tissue_data(), steps, batch_size, crop, generator)
        schedule = Schedule(steps, learning_rate, weight_decay=1e-4, rising=0.15, bfloat16=has_bfloat16())
        fit(model, batches, tissue_loss, schedule, progress=progress)
        save_weights(model, path)


def tissue_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Judge scores: cross-entropy plus one minus the mean soft Dice overlap; rare tissues count fully.

    Args:
        scores: Logits, (N, classes, *spatial).
        labels: int64, (N, *spatial).

    Returns:
        The loss, a scalar.
    """
    entropy = F.cross_entropy(scores, labels)
    shares = scores.softmax(dim=1)
    truth = F.one_hot(labels, scores.shape[1]).movedim(-1, 1).to(shares.dtype)
    axes = (0, *range(2, scores.dim()))
    overlap = 2 * (shares * truth).sum(axes) / (shares + truth).sum(axes).clamp(min=1.0)
    return entropy + 1 - overlap.mean()


def _batches(
    data: TissueData, steps: int, batch_size: int, crop: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw augmented batches; every slice comes up equally often.

    Args:
        data: The template.
        steps: How many batches.
        batch_size: Slices per batch.
        crop: Side of the crops.
        generator: Source of randomness.

    Yields:
        Images (N, 7, crop, crop) and labels (N, crop, crop).
    """
    indices = training_slices()
    images, labels = data.inputs(indices), data.targets(indices)
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(queue) < batch_size:
            queue = torch.cat([queue, torch.randperm(len(indices), generator=generator)])
        drawn, queue = queue[:batch_size], queue[batch_size:]
        yield augment(images[drawn], labels[drawn], crop=crop, generator=generator)
