"""What is done to each volume: networks, grid, views or windows, options. Picklable: workers get it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from nansparse.errors import InputError
from nansparse.evaluation.conditions import find_device
from nansparse.imaging.slices import PLANES
from nansparse.policy import Policy
from nansparse.prediction.grids import CONFORMED, Grid
from nansparse.prediction.models import ModelSource

# How much each plane says in FastSurfer (Henschel et al., NeuroImage 2020): the sagittal network cannot tell
# left from right, so it counts half.
VIEW_WEIGHTS = {"coronal": 0.4, "axial": 0.4, "sagittal": 0.2}
WHOLE = 0
# The axis order in which nansparse.imaging.slices names its planes.
SLICED_ORIENTATION = "LIA"
ACTIVATIONS = ("softmax", "sigmoid", "none")


@dataclass(frozen=True)
class View:
    """One network and how it looks at the volume.

    Attributes:
        source: The network.
        plane: "coronal", "axial" or "sagittal" for 2D networks; empty for 3D ones.
        weight: How much its scores count among the views.
        classes: For each class of the result, the class of this network that scores it; None if they are the
            same.
    """

    source: ModelSource
    plane: str = ""
    weight: float = 1.0
    classes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Validate."""
        if self.plane and self.plane not in PLANES:
            raise InputError(f"plane is {self.plane!r}; supported: {', '.join(PLANES)}")
        if not self.weight > 0:
            raise InputError(f"the weight of a view must be > 0, got {self.weight}")


@dataclass(frozen=True)
class Background:
    """Which voxels are marked as NaN before the network sees them.

    Attributes:
        value: Intensity of the background on the network's grid; it is marked where it touches the border.
        margin: Background voxels up to this far from the rest stay.
        mask: A mask volume (nonzero: not background), or a folder with one of each image's name; instead of
            the value.
    """

    value: float = 0.0
    margin: int = 0
    mask: Path | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything but the file names.

    Attributes:
        views: The networks.
        grid: The grid they see.
        policy: Options of `nansparse.enable`, without the generator.
        seed: Of the random marking (`nan_probability` below 1), anew for each volume.
        background: What is marked as NaN; None for nothing.
        thickness: Slices per input of a 2D network; None for what its first convolution takes.
        window: Voxels of a 3D network's window along each axis, `WHOLE` for the whole axis.
        overlap: Share of a window that its neighbour covers too, [0, 1).
        gaussian: Whether the middle of a window counts more than its rim.
        multiple: Sides of what a network gets are padded to a multiple of this.
        batch_size: Slices per call of a 2D network.
        activation: Turns scores into probabilities: "softmax", "sigmoid" or "none" (they are probabilities).
        label_values: The number to write for each class; None for the class itself.
        compare: Whether to run dense beside it, for Dice and time.
        threads: CPU threads.
        device: "cpu", "cuda", "cuda:1".
    """

    views: tuple[View, ...]
    grid: Grid = Grid()
    policy: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    background: Background | None = None
    thickness: int | None = None
    window: tuple[int, int, int] = (96, 96, 96)
    overlap: float = 0.5
    gaussian: bool = True
    multiple: int = 16
    batch_size: int = 4
    activation: str = "softmax"
    label_values: tuple[int, ...] | None = None
    compare: bool = False
    threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Validate."""
        self.new_policy()
        planes = [view.plane for view in self.views]
        if not planes or len(set(planes)) != len(planes):
            raise InputError(f"expected one network for each of some planes, got {planes}")
        if any(planes) and self.grid.kind != CONFORMED and self.grid.orientation != SLICED_ORIENTATION:
            raise InputError(
                f"planes are those of a grid in {SLICED_ORIENTATION} order: take the conformed grid, or a "
                f"native one with orientation {SLICED_ORIENTATION}"
            )
        if not 0.0 <= self.overlap < 1.0:
            raise InputError(f"overlap must be in [0, 1), got {self.overlap}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
        if self.multiple < 1 or self.batch_size < 1 or self.threads < 1:
            raise InputError("multiple, batch_size and threads must be 1 or more")
        if self.window != (WHOLE,) * 3 and min(self.window) < 1:
            raise InputError(f"window must be three numbers of voxels, or the whole, got {self.window}")
        if self.label_values is not None and min(self.label_values, default=0) < 0:
            raise InputError("label values must be 0 or more")
        find_device(self.device)

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON-able data.

        Returns:
            Every attribute; paths as text.
        """
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return found

    @property
    def empty(self) -> float:
        """Intensity of the background on the network's grid."""
        return 0.0 if self.background is None else self.background.value

    def new_policy(self) -> Policy:
        """Make the options of one volume, with a random source of their own if they need one.

        Returns:
            The policy; NaN stays in the output, where it means "nobody scored this voxel".
        """
        random = self.policy.get("nan_probability", 1.0) < 1.0
        generator = torch.Generator().manual_seed(self.seed) if random else None
        return Policy(**{**self.policy, "output_nan": "keep", "generator": generator})
