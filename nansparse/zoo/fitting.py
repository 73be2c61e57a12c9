"""The loop that every training of the zoo runs: AdamW under a one-cycle schedule, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a network learns.

    Attributes:
        steps: Optimiser steps, one a batch.
        learning_rate: The peak of the one-cycle schedule.
        weight_decay: Of AdamW.
        rising: Share of the steps in which the learning rate rises.
        bfloat16: Whether to compute in bfloat16, channels last; `has_bfloat16` tells where that is the
            faster way. Weights and loss stay float32.
        longest_gradient: Gradients with a larger Euclidean norm are scaled down to it; None for any.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    rising: float = 0.3
    bfloat16: bool = False
    longest_gradient: float | None = None


def has_bfloat16() -> bool:
    """Tell whether this processor gains from bfloat16.

    Returns:
        Whether it has AVX-512. Elsewhere products of bfloat16 are emulated and take about ten times as long
        as those of float32.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss,
    schedule: Schedule,
    *,
    progress: bool = True,
) -> None:
    """Train a network in place; it is left in eval mode.

    Args:
        model: The network.
        batches: Inputs and targets, as many as the schedule has steps.
        loss: Takes float32 outputs and targets, gives a scalar.
        schedule: How long and how fast.
        progress: Whether to show a progress bar.
    """
    from tqdm import tqdm

    flat = all(parameter.dim() < 5 for parameter in model.parameters())
    last = torch.channels_last if flat else torch.channels_last_3d
    layout: Any = last if schedule.bfloat16 else torch.contiguous_format
    model.train().to(memory_format=layout)  # type: ignore[call-overload]
    rate = schedule.learning_rate
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=schedule.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=schedule.steps + 1, pct_start=schedule.rising
    )
    bar = tqdm(batches, total=schedule.steps, desc="training", unit="step", disable=not progress)
    for inputs, targets in bar:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if schedule.bfloat16 else nullcontext():
            outputs = model(inputs.contiguous(memory_format=layout))
        value = loss(outputs.float(), targets)
        value.backward()
        if schedule.longest_gradient is not None:
            nn.utils.clip_grad_norm_(model.parameters(), schedule.longest_gradient)
        optimizer.step()
        cycle.step()
        bar.set_postfix(loss=f"{value.item():.3g}")
    model.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
