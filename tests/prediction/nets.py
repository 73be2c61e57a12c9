"""Networks whose labels are known, and small volumes for them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor, nn

CUT = 0.5


def bright2d(channels: int = 3, classes: int = 2) -> nn.Module:
    """Label 1 where the middle slice is brighter than CUT; further classes never win."""
    net = nn.Conv2d(channels, classes, 1)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1, channels // 2] = 1.0
        net.bias.copy_(torch.tensor([CUT, 0.0, *[-9.0] * (classes - 2)]))
    return net


def bright3d(classes: int = 2) -> nn.Module:
    """Label 1 where the voxel is brighter than CUT."""
    net = nn.Conv3d(1, classes, 1)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[-1] = 1.0
        net.bias.zero_()
        net.bias[0] = CUT if classes > 1 else -CUT
    return net


class Pooled(nn.Module):
    """A small net that pools and unpools, 2D or 3D."""

    def __init__(self, axes: int = 2, channels: int = 3) -> None:
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        self.first = conv(channels, 8, 3, padding=1)
        self.pool = (nn.MaxPool2d if axes == 2 else nn.MaxPool3d)(2, return_indices=True)
        self.middle = conv(8, 8, 3, padding=1)
        self.unpool = (nn.MaxUnpool2d if axes == 2 else nn.MaxUnpool3d)(2)
        self.last = conv(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y, indices = self.pool(self.first(x).relu())
        return self.last(self.unpool(self.middle(y).relu(), indices))


def pooled(axes: int = 2, channels: int = 3) -> nn.Module:
    """Build the small net from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Pooled(axes, channels)
    with torch.no_grad():
        net.last.bias.copy_(torch.tensor([0.0, 0.05, 0.1]))  # so that an empty region is not of class 0
    return net


class Deadly(nn.Conv3d):
    """Ends its process where a voxel is brighter than 0.9."""

    def forward(self, x: Tensor) -> Tensor:
        if float(x.nan_to_num().max()) > 0.9:
            os._exit(3)
        return super().forward(x)


def deadly() -> nn.Module:
    """Build it."""
    return Deadly(1, 2, 1)


class Slow(nn.Conv3d):
    """Takes half a second a window, in Python, as a large network takes in torch."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.5)
        return super().forward(x)


def slow() -> nn.Module:
    """Build it; it labels what `bright3d` labels."""
    net, known = Slow(1, 2, 1), bright3d()
    net.load_state_dict(known.state_dict())
    return net


class Faulty(nn.Conv3d):
    """Has a bug."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :0])


def faulty() -> nn.Module:
    """Build it."""
    return Faulty(1, 2, 1)


class Halved(nn.Conv3d):
    """Returns scores on a coarser grid."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., ::2]


def halved() -> nn.Module:
    """Build it."""
    return Halved(1, 2, 1)


def ends() -> nn.Module:
    """End the program, as a script does that was never meant to be imported."""
    sys.exit("no")


def no_model() -> str:
    """Return what is no model."""
    return "model"


AFFINE = np.array([[-1.0, 0, 0, 9], [0, 0, 1.25, -7], [0, -1.5, 0, 5], [0, 0, 0, 1]])


def write_image(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an image; its file type follows the name."""
    kind = nibabel.MGHImage if path.suffix == ".mgz" else nibabel.Nifti1Image
    nibabel.save(kind(data.astype(np.float32), AFFINE if affine is None else affine), path)
    return path


def ball(shape: tuple[int, int, int] = (18, 21, 15), bright: float = 0.8) -> np.ndarray:
    """Draw a bright off-centre ball on an empty background, a little darker towards its rim."""
    axes = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    distance = np.sqrt(sum((axis - 0.4 * size) ** 2 for axis, size in zip(axes, shape, strict=True)))
    return np.where(distance < 6, bright - 0.06 * distance, 0.0).astype(np.float32)
