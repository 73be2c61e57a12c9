"""The networks of the goals with trained weights, which alone tell what marking costs in accuracy.

The weights are made by `nansparse zoo train tissue --filters 71` and `nansparse zoo train unet`, and not
shipped.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import nansparse
from benchmarks.network_runs import dice_inside
from benchmarks.networks import CONSERVATIVE, MARKED, TRAINED, Case, all_slices, head, slices
from nansparse.errors import InputError
from nansparse.evaluation.results import Row
from nansparse.zoo import load_tissue_model, load_weights
from nansparse.zoo.tissue_unet import new_tissue_unet

FASTSURFER, UNET = "tissue_fastsurfer_71.safetensors", "tissue_unet.safetensors"
MAKERS = {FASTSURFER: "nansparse zoo train tissue --filters 71", UNET: "nansparse zoo train unet"}
# Dice with the dense labels inside the brain.
KEPT = 0.995
# The U-Net never saw another background than one level, at half the resolution: these are the smallest
# margins with which it keeps that much, as `margin_rows` tells.
NARROW_MARGIN, WIDE_MARGIN = 6, 7
MARGINS = range(9)
_OVER_DENSE, _OVER_BOX = (MARKED, "speed_up"), (MARKED, "over_box")
_OF_FASTSURFER = {
    _OVER_DENSE: 4.0,
    _OVER_BOX: 1.3,
    (MARKED, "dice_inside"): KEPT,
    (CONSERVATIVE, "speed_up"): 1.5,
    (CONSERVATIVE, "dice_inside"): KEPT,
}
_OF_UNET = {_OVER_DENSE: 3.0, (MARKED, "dice_inside"): KEPT}


def trained_cases(folder: Path) -> tuple[Case, ...]:
    """Find the trained networks.

    Args:
        folder: Where the weights are, under the names that training gives them.

    Returns:
        FastSurferCNN at its published width on slices, and a 3D U-Net.

    Raises:
        InputError: If weights are missing; the message says how to make them.
    """
    for name, maker in MAKERS.items():
        if not (folder / name).is_file():
            raise InputError(f"no {name} in {folder}: there, run {maker}")
    fastsurfer = partial(load_tissue_model, folder / FASTSURFER)
    unet = partial(_unet, folder / UNET)
    name = "FastSurferCNN, 71 filters, 4 tissues"
    sliced = {"weights": TRAINED, "unpools": True, "goals": _OF_FASTSURFER}
    return (
        Case(name, fastsurfer, slices, **sliced),
        Case(f"{name}, whole volume", fastsurfer, all_slices, **sliced),
        Case("U-Net, 32 to 256, 4 tissues", unet, _narrow, TRAINED, NARROW_MARGIN, goals=_OF_UNET),
        Case("U-Net, 32 to 256, 4 tissues, wide field", unet, _wide, TRAINED, WIDE_MARGIN, goals=_OF_UNET),
    )


def margin_rows(case: Case, count: int, device: torch.device) -> list[Row]:
    """Measure what each margin costs in Dice and leaves to compute; nothing is timed.

    Args:
        case: A trained network.
        count: How many slices a 2D network gets.
        device: What to run on.

    Returns:
        One row for each of `MARGINS`.
    """
    model, x = case.build().eval().to(device), case.image(count).to(device)
    rows = []
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    model, parts = model.to(memory_format=layout), x.split(1)  # type: ignore[call-overload]
    inside = (x != 0).any(1)
    with torch.inference_mode():
        dense = torch.cat([model(part).argmax(1) for part in parts])[inside]
        for margin in MARGINS:
            with nansparse.enable(model) as run:
                marked = [nansparse.mask_background(part, margin=margin) for part in parts]
                found = torch.cat([model(part).argmax(1) for part in marked])[inside]
            values: dict[str, float | None] = {
                "macs_skipped": run.macs_skipped / run.macs,
                "dice_inside": dice_inside(found, dense),
            }
            cell = {"network": case.name, "weights": case.weights, "input": "x".join(map(str, x.shape))}
            policy = {**run.policy.to_dict(), "margin": margin}
            rows.append(Row(cell, f"margin {margin}, not timed", policy=policy, values=values))
    return rows


def _unet(weights: Path) -> nn.Module:
    model = new_tissue_unet()
    load_weights(model, weights)
    return model.requires_grad_(False)


def _narrow(_: int) -> Tensor:
    return head(96)


def _wide(_: int) -> Tensor:
    return head(128)
