"""Training the denoiser on the MNI152 template: `nansparse zoo train denoiser`, one command, one seed.

The same seed gives the same weights on the same processor, torch version and number of threads.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from nansparse.zoo.denoiser import new_denoiser
from nansparse.zoo.denoiser_data import denoising_batches
from nansparse.zoo.fitting import Schedule, fit, has_bfloat16
from nansparse.zoo.tissue_data import load_tissue_data
from nansparse.zoo.weights_file import checked_output, save_weights, threads_of


def train_denoiser(
    output: str | Path,
    *,
    seed: int = 0,
    steps: int = 900,
    batch_size: int = 4,
    crop: int = 96,
    learning_rate: float = 5e-3,
    threads: int = 2,
    progress: bool = True,
) -> None:
    """Train the denoiser and write its weights; nothing is written before training is complete.

    Args:
        output: Where the weights go, a `.safetensors` file in an existing folder.
        seed: Of the initial weights and of every crop and noise; the caller's random state is left alone.
        steps: Optimiser steps.
        batch_size: Crops per step.
        crop: Side of the squares cut out of the slices.
        learning_rate: The peak of a one-cycle schedule.
        threads: CPU threads to use; restored afterwards.
        progress: Whether to show a progress bar.
    """
    path = checked_output(output, steps=steps, batch_size=batch_size, crop=crop, threads=threads)
    generator = torch.Generator().manual_seed(seed)
    model = new_denoiser(generator)
    schedule = Schedule(
        steps,
        learning_rate,
        weight_decay=1e-4,
        rising=0.15,
        bfloat16=has_bfloat16(),
        longest_gradient=0.1,
    )
    with threads_of(threads):
        batches = denoising_batches(load_tissue_data(), steps, batch_size, crop, generator)
        fit(model, batches, F.l1_loss, schedule, progress=progress)
        save_weights(model, path)
