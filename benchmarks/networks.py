"""Networks that users run and the images they see: a skull-stripped head, in slices and in 3D.

Weights are random where none are packaged, which changes no time; what marking costs in accuracy is then told
by the trained networks (`nansparse bench models`, `nansparse predict --compare`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from nansparse.background import USUAL_MARGIN
from nansparse.imaging import conform, load_template, slabs
from nansparse.zoo import FastSurferCNN, UNet, load_tissue_model
from nansparse.zoo.fastsurfer import initialise
from nansparse.zoo.tissue_volume import halve

CLASSES = 4
# Every network here halves its grid at most four times.
STRIDE = 16
RANDOM, TRAINED = "random", "trained"
# The ways for which there are goals.
MARKED, CONSERVATIVE = "background marked", "conservative"
# The way in which pooling marks nothing, so that the result is the dense run's, to rounding.
UNMARKED = "nothing marked"


@dataclass(frozen=True)
class Case:
    """One network and what it sees.

    Attributes:
        name: What tables call it.
        build: Makes it.
        image: Makes its input from a number of slices, (N, C, *spatial), zero outside the brain; a 3D
            network gets one volume.
        weights: "random" or "trained".
        margin: Background cells that stay around the brain.
        unpools: Whether it unpools, so that conservative mode marks something without a background mask.
        goals: What is aimed at, by way and measure, as `benchmarks.network_runs` names them.
    """

    name: str
    build: Callable[[], nn.Module]
    image: Callable[[int], Tensor]
    weights: str = RANDOM
    margin: int = USUAL_MARGIN
    unpools: bool = False
    goals: dict[tuple[str, str], float] = field(default_factory=dict)


def head(side: int) -> Tensor:
    """Take the skull-stripped MNI152 T1 at 2 mm.

    Args:
        side: Of the cube around it.

    Returns:
        (1, 1, side, side, side), in [0, 1], zero outside the brain.
    """
    half = halve(torch.from_numpy(conform(load_template().t1).data.copy()))
    start = (half.shape[-1] - side) // 2
    part = slice(start, start + side)
    return half[:, :, part, part, part].contiguous()


def slices(count: int) -> Tensor:
    """Cut coronal slabs out of the conformed MNI152 T1, evenly spread over the brain.

    Args:
        count: How many.

    Returns:
        (count, 7, 256, 256), in [0, 1], zero outside the brain.
    """
    return _slabs(np.linspace(48, 208, count))


def all_slices(count: int) -> Tensor:
    """Cut coronal slabs out of the conformed MNI152 T1, evenly spread over the whole volume.

    FastSurfer labels every slice of a volume, those in front of the brain and behind it included.

    Args:
        count: How many; 256 are all.

    Returns:
        (count, 7, 256, 256), in [0, 1], zero outside the brain.
    """
    return _slabs((np.arange(count) + 0.5) * 256 / count)


def _slabs(numbers: np.ndarray) -> Tensor:
    return slabs(conform(load_template().t1).data, "coronal", [int(number) for number in numbers])


def _fastsurfer() -> nn.Module:
    model = FastSurferCNN(num_filters=71, num_classes=79, kernel_size=3)
    initialise(model, torch.Generator().manual_seed(0))
    return model


# How many slices a 2D network gets, and what cuts them.
SLICES, SLICED = 8, (slices, all_slices)
_OVER_DENSE, _OVER_BOX = (MARKED, "speed_up"), (MARKED, "over_box")
_OF_FASTSURFER = {_OVER_DENSE: 4.0, _OVER_BOX: 1.3, (CONSERVATIVE, "speed_up"): 1.5}
CASES = (
    Case(
        "FastSurferCNN, 71 filters, 79 classes",
        _fastsurfer,
        slices,
        unpools=True,
        goals=_OF_FASTSURFER,
    ),
    Case(
        "FastSurferCNN, 71 filters, 79 classes, whole volume",
        _fastsurfer,
        all_slices,
        unpools=True,
        goals=_OF_FASTSURFER,
    ),
    Case(
        "tissue network, 64 filters, 4 classes",
        load_tissue_model,
        slices,
        weights=TRAINED,
        unpools=True,
    ),
    Case(
        "U-Net, max pooling, 32 to 256",
        lambda: UNet(num_classes=CLASSES),
        lambda _: head(96),
        goals={_OVER_DENSE: 3.0},
    ),
    Case(
        "U-Net, max pooling, 32 to 256, wide field",
        lambda: UNet(num_classes=CLASSES),
        lambda _: head(128),
        goals={_OVER_DENSE: 3.0},
    ),
    Case(
        "U-Net, max unpooling, 32 to 256",
        lambda: UNet(num_classes=CLASSES, unpool=True),
        lambda _: head(96),
        unpools=True,
    ),
)
