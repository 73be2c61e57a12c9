"""The shipped tissue network: a small FastSurferCNN trained on one template, for demonstration only.

Its card lies beside the weights, `weights/tissue_fastsurfer.md`.
"""

from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nansparse.evaluation.metrics import dice
from nansparse.imaging.slices import THICKNESS
from nansparse.imaging.template import TISSUES
from nansparse.zoo.checkpoints import load_weights, read_state
from nansparse.zoo.fastsurfer import FastSurferCNN
from nansparse.zoo.tissue_data import held_out_slices, load_tissue_data

NUM_FILTERS = 64
WEIGHTS = "weights/tissue_fastsurfer.safetensors"


def new_tissue_model(num_filters: int = NUM_FILTERS) -> FastSurferCNN:
    """Create the tissue network with fresh weights; the caller's random state is left alone.

    Args:
        num_filters: Its width.

    Returns:
        The network, in training mode.
    """
    with torch.random.fork_rng(devices=[]):
        return FastSurferCNN(
            in_channels=THICKNESS, num_filters=num_filters, num_classes=len(TISSUES), kernel_size=3
        )


def load_tissue_model(weights: str | Path | None = None) -> nn.Module:
    """Load the trained tissue network.

    Args:
        weights: A `.safetensors` file of `nansparse zoo train`, of any width; the shipped weights by default.

    Returns:
        The network in eval mode, on the CPU. Its input are seven coronal slices of a conformed volume as
        `nansparse.imaging.slabs` makes them; its classes are `nansparse.imaging.TISSUES`.
    """
    if weights is not None:
        model = new_tissue_model(_width(weights))
        load_weights(model, weights)
    else:
        model = new_tissue_model()
        with resources.as_file(resources.files("nansparse.zoo") / WEIGHTS) as path:
            load_weights(model, path)
    return model.eval().requires_grad_(False)


def _width(weights: str | Path) -> int:
    """Read the width of the network off its first convolution; the usual one where there is none."""
    first = read_state(weights).get("encode1.conv0.weight")
    return NUM_FILTERS if first is None or not first.dim() else len(first)


def score_tissue_model(
    weights: str | Path | None = None, *, batch_size: int = 4, progress: bool = True
) -> dict[str, Any]:
    """Judge the tissue network on the slices that training never showed it.

    Args:
        weights: A `.safetensors` file of `nansparse zoo train`; the shipped weights by default.
        batch_size: Slices per forward pass.
        progress: Whether to show a progress bar.

    Returns:
        "slices": how many were judged; "dice": overlap with the template's maps by tissue; "outside": voxels
        outside the brain that were given a tissue.
    """
    from tqdm import tqdm

    model = load_tissue_model(weights)
    data, indices = load_tissue_data(), held_out_slices()
    predicted = []
    starts = range(0, len(indices), batch_size)
    with torch.inference_mode():
        for start in tqdm(starts, desc="scoring", unit="batch", disable=not progress):
            scores = model(data.inputs(indices[start : start + batch_size]))
            predicted.append(scores.argmax(dim=1))
    return {"slices": len(indices), **judge_tissues(torch.cat(predicted), data.targets(indices))}


def judge_tissues(labels: Tensor, truth: Tensor) -> dict[str, Any]:
    """Compare tissue labels with the template's maps.

    Args:
        labels: What a network found, int64, any shape.
        truth: The maps' labels, as `labels`.

    Returns:
        "dice": overlap by tissue; "outside": voxels outside the brain that were given a tissue.
    """
    overlaps = dice(labels, truth, range(len(TISSUES)))
    return {
        "dice": {name: overlaps[label] for label, name in enumerate(TISSUES)},
        "outside": int(((labels > 0) & (truth == 0)).sum()),
    }
