"""The tables of arXiv 2601.17180 as far as packaged data allow: windows skipped per block, ours and theirs.

Published weights are not packaged, so each table says whose weights it was made with.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nansparse
from nansparse import NothingToDoWarning, RunRecord
from nansparse.evaluation.results import Row
from nansparse.imaging import conform, load_template, slabs
from nansparse.zoo import Xception, load_denoiser, load_digits_model, load_tissue_model
from nansparse.zoo.denoiser_data import add_rician_noise
from nansparse.zoo.denoiser_score import SWEPT_LEVEL
from nansparse.zoo.digits_data import load_digits

Setting = tuple[str, float]
CONSERVATIVE, AGGRESSIVE = ("conservative", 0.5), ("aggressive", 0.5)


@dataclass(frozen=True)
class Network:
    """One network of the paper.

    Attributes:
        name: Its name.
        model: Makes it.
        inputs: Makes its inputs, batches of one or more.
        settings: Mode and threshold of each run.
        block: Turns a layer's name into the row it is counted in.
        published: Row to text, by setting; as far as the paper says.
        weights: Whose weights.
        why: Why the shares differ from the published ones.
    """

    name: str
    model: Callable[[], nn.Module]
    inputs: Callable[[], Sequence[Tensor]]
    settings: Sequence[Setting]
    block: Callable[[str], str]
    published: dict[Setting, dict[str, str]]
    weights: str
    why: str


def template_slices(count: int) -> list[Tensor]:
    """Cut slabs of seven coronal slices out of the MNI152 T1, evenly spread over the brain.

    Args:
        count: How many.

    Returns:
        One (1, 7, 256, 256) each.
    """
    volume = conform(load_template().t1).data
    indices = [int(index) for index in np.linspace(48, 208, count)]
    return list(slabs(volume, "coronal", indices).split(1))


def noisy_slices(count: int) -> list[Tensor]:
    """Cut the same slabs with Rician noise in the brain, as a skull-stripped scan has it.

    Args:
        count: How many.

    Returns:
        One (1, 7, 256, 256) each.
    """
    generator = torch.Generator().manual_seed(0)
    return [
        add_rician_noise(slab, SWEPT_LEVEL, generator).masked_fill_(slab == 0, 0.0)
        for slab in template_slices(count)
    ]


def photographs() -> list[Tensor]:
    """Load the two photographs that scikit-learn carries, as Xception sees images.

    Returns:
        (1, 3, 299, 299) each, in [-1, 1].
    """
    from sklearn.datasets import load_sample_images

    images = [
        torch.from_numpy(image.copy()).movedim(-1, 0)[None] / 127.5 - 1
        for image in load_sample_images().images
    ]
    resized = [F.interpolate(image, size=(333, 499), mode="bilinear", antialias=True) for image in images]
    return [image[:, :, 17:316, 100:399] for image in resized]


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with random weights that are the same every time.

    Args:
        make: Builds it.

    Returns:
        The network in eval mode.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = make().eval()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


NETWORKS = (
    Network(
        "FastSurfer",
        load_tissue_model,
        lambda: template_slices(16),
        (CONSERVATIVE, AGGRESSIVE),
        lambda layer: layer.split(".")[0],
        {
            CONSERVATIVE: {"decode4": "0.2-0.35", "decode1": "0.82"},
            AGGRESSIVE: {"encode2": "about 0.75", "bottleneck": "0.2", "decode2": "up to 0.7"},
        },
        "the shipped tissue network (64 filters, 4 classes), trained on one template",
        "Another network and another head: 64 filters for 71, 4 classes for 79, and a template without its "
        "skull, whose empty background is wide enough to stay tied down to the bottleneck.",
    ),
    Network(
        "digits",
        load_digits_model,
        lambda: [load_digits(held_out=True).images],
        (("aggressive", 0.5), ("aggressive", 1.0)),
        lambda layer: layer,
        {
            ("aggressive", 0.5): {"conv2": "0.75", "conv3": "0.78", "conv4": "0.41"},
            ("aggressive", 1.0): {"conv2": "0.15", "conv3": "0", "conv4": "0"},
        },
        "the shipped classifier, trained on scikit-learn's digits",
        "Another data set: 8 x 8 digits enlarged to 20 x 20, whose soft edges leave less constant background "
        "than MNIST's; and weights of our own.",
    ),
    Network(
        "Xception",
        lambda: seeded(Xception),
        photographs,
        (("aggressive", 1.0), ("aggressive", 0.5), ("aggressive", 0.25)),
        lambda layer: layer.split(".")[0],
        {
            ("aggressive", 1.0): {"all": "near 0"},
            ("aggressive", 0.5): {"all": "near 0"},
            ("aggressive", 0.25): {"all": "0.19-0.28"},
        },
        "RANDOM weights: no trained ones are packaged",
        "Pooling follows a batch norm, so its windows hold no ties; the paper's code pads them with zeros "
        "that count as cells, where torch's padding never wins. Random weights, two photographs.",
    ),
    Network(
        "FONDUE",
        load_denoiser,
        lambda: noisy_slices(4),
        (CONSERVATIVE, AGGRESSIVE),
        lambda layer: f"level {layer[4]}" if layer.startswith("conv") else "output",
        {},
        "the shipped denoiser (16 filters), trained on one template with Rician noise",
        "No published shares per layer are at hand. The brain carries 5 % of Rician noise, the background is "
        "zero: where noise fills the background too, nothing ties and nothing is skipped.",
    ),
)


def count_windows(network: Network) -> list[Row]:
    """Run a network in all its settings and count windows block by block.

    Args:
        network: The network.

    Returns:
        A row a block and setting, with the share of its windows that was skipped.
    """
    model, inputs = network.model(), list(network.inputs())
    found = {setting: _run(model, inputs, setting, network.block) for setting in network.settings}
    blocks = list(dict.fromkeys(block for shares in found.values() for block in shares))
    return [
        Row(
            {"network": network.name, "block": block},
            _named(setting),
            policy={"mode": setting[0], "threshold": setting[1]},
            values={"windows_skipped": found[setting][block]},
        )
        for block in blocks
        for setting in network.settings
    ]


def published_beside(rows: Sequence[Row]) -> dict[str, Any]:
    """Look up what the paper says of what was counted.

    Args:
        rows: Of `count_windows`.

    Returns:
        "published" (network, block, way, and the text of the paper) and "notes" by network.
    """
    networks = {network.name: network for network in NETWORKS}
    published = [
        {"network": name, "block": block, "way": _named(setting), "text": text}
        for name in dict.fromkeys(row.cell["network"] for row in rows)
        for setting, texts in networks[name].published.items()
        for block, text in texts.items()
    ]
    notes = {network.name: f"Weights: {network.weights}. {network.why}" for network in NETWORKS}
    return {"published": published, "notes": notes}


def _named(setting: Setting) -> str:
    return f"{setting[0]} {setting[1]:g}"


def _run(
    model: nn.Module, inputs: Sequence[Tensor], setting: Setting, block: Callable[[str], str]
) -> dict[str, float]:
    mode, threshold = setting
    with warnings.catch_warnings(), torch.inference_mode():
        # Conservative mode says where it has nothing to mark; the table says it too.
        warnings.simplefilter("ignore", NothingToDoWarning)
        with nansparse.enable(model, mode=mode, threshold=threshold) as run:
            for x in inputs:
                model(x)
    return shares(run, block)


def shares(run: RunRecord, block: Callable[[str], str]) -> dict[str, float]:
    """Add up the convolution windows of each block.

    Args:
        run: What was done.
        block: Turns a layer's name into its block.

    Returns:
        Block to the share of its windows that was skipped; "all" for the whole network.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for layer in run.layers:
        if layer.operation == "conv2d":
            for name in (block(layer.layer), "all"):
                counts[name][0] += layer.windows_skipped
                counts[name][1] += layer.windows
    whole = counts.pop("all")
    return {name: skipped / total for name, (skipped, total) in [*counts.items(), ("all", whole)]}
