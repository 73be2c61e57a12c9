"""Training the digit classifier, and judging it on digits kept out.

`nansparse zoo train digits` and `nansparse zoo score digits` are the commands.

The same seed gives the same weights on the same processor, torch version and number of threads.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import nansparse
from nansparse.errors import NothingToDoWarning
from nansparse.zoo.digits import DigitsCNN, load_digits_model, new_digits_model
from nansparse.zoo.digits_data import SIDE, Digits, load_digits
from nansparse.zoo.fitting import Schedule, fit
from nansparse.zoo.shares import paired_interval, wilson_interval
from nansparse.zoo.weights_file import checked_output, save_weights, threads_of

THRESHOLDS = (1.0, 0.75, 0.5)
# Cells that may tie in a stable window: as published, and with a pair of equal cells forgiven.
MAX_TIES = (1, 2)


def train_digits_model(
    output: str | Path,
    *,
    seed: int = 0,
    steps: int = 600,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    threads: int = 2,
    progress: bool = True,
) -> None:
    """Train the classifier and write its weights; nothing is written before training is complete.

    Args:
        output: Where the weights go, a `.safetensors` file in an existing folder.
        seed: Of the initial weights and of every augmentation; the caller's random state is left alone.
        steps: Optimiser steps.
        batch_size: Images per step.
        learning_rate: The peak of a one-cycle schedule.
        threads: CPU threads to use; restored afterwards.
        progress: Whether to show a progress bar.
    """
    path = checked_output(output, steps=steps, batch_size=batch_size, threads=threads)
    generator = torch.Generator().manual_seed(seed)
    model = new_digits_model(generator)
    schedule = Schedule(steps, learning_rate, weight_decay=1e-2)
    with threads_of(threads):
        batches = _batches(load_digits(held_out=False), steps, batch_size, generator)
        fit(model, batches, digits_loss, schedule, progress=progress)
        save_weights(model, path)


def digits_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Judge scores by cross-entropy; a little of every label goes to the other classes.

    Args:
        scores: Logits, (N, 10).
        labels: int64, (N,).

    Returns:
        The loss, a scalar.
    """
    return F.cross_entropy(scores, labels, label_smoothing=0.05)


def _batches(
    digits: Digits, steps: int, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Draw batches of moved digits."""
    for _ in range(steps):
        drawn = torch.randint(len(digits.labels), (batch_size,), generator=generator)
        yield moved(digits.images[drawn], generator), digits.labels[drawn]


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale and shift digits a little; black stays black.

    Args:
        images: (N, 1, 28, 28).
        generator: Source of randomness.

    Returns:
        Images of the same shape.
    """
    count = len(images)
    angle, size, across, down = (torch.rand(4, count, generator=generator) * 2 - 1).unbind()
    angle, size = angle * math.radians(12), 1 + 0.12 * size
    cosine, sine = angle.cos() * size, angle.sin() * size
    shift = 4 / SIDE
    rows = [torch.stack([cosine, -sine, across * shift], 1), torch.stack([sine, cosine, down * shift], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def score_digits_model(weights: str | Path | None = None) -> dict[str, Any]:
    """Judge the classifier on the digits kept out, dense and in aggressive mode.

    Args:
        weights: A `.safetensors` file of `nansparse zoo train digits`; the shipped weights by default.

    Returns:
        "images"; "accuracy" of the dense run and "accuracy_interval", 95 % (Wilson); "runs", one an order of
        rectifier and pooling, `max_ties` and threshold: "pool_first", "max_ties", "threshold", "accuracy",
        "loss" (dense minus this run), "loss_interval", 95 % (paired, Newcombe), "skipped", the share of
        windows skipped in each convolution.
    """
    digits = load_digits(held_out=True)
    with torch.inference_mode():
        right = load_digits_model(weights)(digits.images).argmax(1) == digits.labels
    runs = []
    for pool_first, max_ties, threshold in product((False, True), MAX_TIES, THRESHOLDS):
        model = load_digits_model(weights, pool_first=pool_first)
        found, skipped = _aggressive(model, digits.images, threshold, max_ties)
        kept = found == digits.labels
        low, high = paired_interval(right, kept)
        runs.append(
            {
                "pool_first": pool_first,
                "max_ties": max_ties,
                "threshold": threshold,
                "accuracy": float(kept.float().mean()),
                "loss": float(right.float().mean() - kept.float().mean()),
                "loss_interval": [low, high],
                "skipped": skipped,
            }
        )
    count = len(digits.labels)
    accuracy = int(right.sum()) / count
    return {
        "images": count,
        "accuracy": accuracy,
        "accuracy_interval": list(wilson_interval(int(right.sum()), count)),
        "runs": runs,
    }


def _aggressive(
    model: DigitsCNN, images: Tensor, threshold: float, max_ties: int
) -> tuple[Tensor, dict[str, float]]:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", NothingToDoWarning)
        with nansparse.enable(model, mode="aggressive", threshold=threshold, max_ties=max_ties) as run:
            found = model(images).argmax(1)
    return found, {x.layer: x.windows_skipped / x.windows for x in run.layers if x.operation == "conv2d"}
