"""A 3D U-Net trained on the tissues of the MNI152 template: `nansparse zoo train unet`, one seed.

Its weights (22 MB) are not shipped. It is for measurements: what marking costs a trained 3D network. The same
seed gives the same weights on the same processor, torch version and number of threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nansparse.errors import InputError
from nansparse.imaging.template import TISSUES
from nansparse.zoo.checkpoints import load_weights
from nansparse.zoo.fastsurfer import initialise
from nansparse.zoo.fitting import Schedule, fit, has_bfloat16
from nansparse.zoo.tissue import judge_tissues
from nansparse.zoo.tissue_volume import FIRST, HELD_OUT, LAST, load_tissue_volume, tissue_crops
from nansparse.zoo.training import tissue_loss
from nansparse.zoo.unet import UNet
from nansparse.zoo.weights_file import checked_output, save_weights, threads_of


def new_tissue_unet() -> UNet:
    """Create the network with fresh weights; the caller's random state is left alone.

    Returns:
        The network in training mode: max pooling, widths 32 to 256. Its input is (N, 1, *spatial) at 2 mm, in
        [0, 1], zero outside the brain; its classes are `nansparse.imaging.TISSUES`.
    """
    with torch.random.fork_rng(devices=[]):
        return UNet(num_classes=len(TISSUES))


def train_tissue_unet(
    output: str | Path,
    *,
    seed: int = 0,
    steps: int = 240,
    batch_size: int = 2,
    crop: int = 48,
    learning_rate: float = 4e-3,
    threads: int = 2,
    progress: bool = True,
) -> None:
    """Train the network and write its weights; nothing is written before training is complete.

    Args:
        output: Where the weights go, a `.safetensors` file in an existing folder.
        seed: Of the initial weights and of every crop; the caller's random state is left alone.
        steps: Optimiser steps.
        batch_size: Cubes per step.
        crop: Side of the cubes cut out of the volume, a multiple of 8.
        learning_rate: The peak of a one-cycle schedule.
        threads: CPU threads to use; restored afterwards.
        progress: Whether to show a progress bar.

    Raises:
        InputError: If a number makes no sense or the output cannot be written.
    """
    path = checked_output(output, steps=steps, batch_size=batch_size, crop=crop, threads=threads)
    generator = torch.Generator().manual_seed(seed)
    model = new_tissue_unet()
    if crop % model.stride or crop > HELD_OUT - FIRST:
        raise InputError(
            f"crop must be a multiple of {model.stride} and at most {HELD_OUT - FIRST}, got {crop}"
        )
    initialise(model, generator)
    schedule = Schedule(steps, learning_rate, weight_decay=1e-4, rising=0.15, bfloat16=has_bfloat16())
    with threads_of(threads):
        batches = tissue_crops(
            *load_tissue_volume(), steps=steps, batch_size=batch_size, crop=crop, generator=generator
        )
        fit(model, batches, tissue_loss, schedule, progress=progress)
        save_weights(model, path)


def score_tissue_unet(weights: str | Path | None) -> dict[str, Any]:
    """Judge the network on the front of the brain, which training never showed it.

    Args:
        weights: A `.safetensors` file of `nansparse zoo train unet`.

    Returns:
        "slices": how many of 2 mm were judged; "dice": overlap with the template's maps by tissue; "outside":
        voxels outside the brain that were given a tissue.

    Raises:
        InputError: If no weights are given: none are shipped.
    """
    if weights is None:
        raise InputError("the weights of unet are not shipped: give --weights, from nansparse zoo train unet")
    model = new_tissue_unet()
    load_weights(model.eval(), weights)
    image, truth = load_tissue_volume()
    with torch.inference_mode():
        labels = model(image).argmax(1)[..., HELD_OUT:LAST]
    return {"slices": LAST - HELD_OUT, **judge_tissues(labels, truth[..., HELD_OUT:LAST])}
