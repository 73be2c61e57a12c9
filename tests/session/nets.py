"""Small networks in the ways people write them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nansparse.zoo.fastsurfer import FastSurferCNN


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with the same weights every time, and leave the global random state alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


class UNet(nn.Module):
    """Concatenation, transposed convolution, batch norm and functional calls."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head = nn.Conv2d(12, 3, 1)
        self.weight = nn.Parameter(torch.randn(6, 6, 3, 3) / 8)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.norm(self.down1(x)))
        skip = F.conv2d(skip, self.weight, None, padding="same") + skip
        low = F.leaky_relu(self.down2(F.max_pool2d(skip, 2)), 0.1)
        return self.head(torch.cat([self.up(low), skip], 1))


class SegNet(nn.Module):
    """Unpooling straight into a convolution, no skip; in-place activations; `.forward()` called directly."""

    def __init__(self, kernel: int | tuple[int, int] = 2, **options: object) -> None:
        super().__init__()
        self.options = {"kernel_size": kernel, **options}
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first.forward(x))
        size = x.shape[2:]
        x, indices = F.max_pool2d(x, **self.options, return_indices=True)
        x = self.relu(self.second(x))
        unpool = {k: v for k, v in self.options.items() if k in ("kernel_size", "stride", "padding")}
        x = F.max_unpool2d(x, indices, **unpool, output_size=size)
        return self.last(self.relu(self.third(x)))


class Classifier(nn.Module):
    """Pooling, adaptive average, reshape, dropout and linear heads."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU6(), nn.MaxPool2d(2)),
        )
        self.head = nn.Sequential(nn.Linear(8 * 4, 10), nn.Dropout(), nn.ReLU(), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.features(x), 2).flatten(1))


class UNet3d(nn.Module):
    """Three axes, pooling with indices, group norm, addition."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.low = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)
        self.up, self.head = nn.Conv3d(4, 4, (3, 1, 3), padding=(1, 0, 1)), nn.Conv3d(4, 2, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.pool, self.unpool = nn.MaxPool3d(2, return_indices=True), nn.MaxUnpool3d(2)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.elu(self.down(x))
        x, indices = self.pool(skip)
        x = self.unpool(F.relu(self.low(x)), indices, skip.shape)
        return self.head(self.norm(self.up(x)) + skip)


class Shared(nn.Module):
    """One module at two depths, competition by maximum, interpolation, depthwise and strided layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.strided, self.last = nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Conv2d(8, 2, 1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        top = self.shared(F.relu(self.first(x)))
        x, indices = self.pool(top)
        x = torch.maximum(self.shared(x), x)
        x = torch.maximum(self.unpool(x, indices), top)
        x = self.depthwise(x) * 0.5 + x
        x = F.interpolate(self.strided(x), scale_factor=2, mode="nearest")
        return self.last(x)


NETS: dict[str, Callable[[], nn.Module]] = {
    "FastSurferCNN": lambda: FastSurferCNN(in_channels=1, num_filters=8, num_classes=5),
    "U-Net": UNet,
    "SegNet": SegNet,
    "classifier": Classifier,
    "3D U-Net": UNet3d,
    "shared modules": Shared,
}


def image(batch: int = 2, *spatial: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A bright, noisy blob on a background of zeros, where every pooling window ties."""
    spatial = spatial or (16, 32)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, 1, *spatial, generator=generator, dtype=torch.float64)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in spatial), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.3 + 0.1 * torch.arange(batch).view(-1, 1, *[1] * len(spatial))
    return (x * inside).to(dtype)


def image_for(name: str, **options: object) -> Tensor:
    """An image that a network takes."""
    return image(2, 12, 10, 8, **options) if name == "3D U-Net" else image(2, **options)
