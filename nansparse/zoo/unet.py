"""A plain U-Net with max pooling, 2D or 3D, in the two forms that matter here: transposed up, or unpooled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nansparse.errors import InputError

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
UNPOOL = {2: nn.MaxUnpool2d, 3: nn.MaxUnpool3d}


class UNet(nn.Module):
    """Two convolutions a level, 2-cell max pooling down, and one of two ways up.

    * `unpool=False`: a transposed convolution with kernel and stride 2 (Çiçek et al., 3D U-Net, 2016). NaN
      pooling makes itself felt in aggressive mode only, or with NaN at the input.
    * `unpool=True`: max unpooling with the indices of the pooling, as in SegNet; conservative mode needs it.

    Either way the result is concatenated with the skip connection.

    Args:
        in_channels: Channels of the image.
        num_classes: Channels of the output.
        widths: Channels of each level, from the top; one pooling between two.
        rank: Spatial axes, 2 or 3.
        unpool: Whether to unpool.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        widths: Sequence[int] = (32, 64, 128, 256),
        rank: int = 3,
        unpool: bool = False,
    ) -> None:
        if rank not in CONVOLUTION or len(widths) < 2 or min(widths) < 1:
            raise InputError(f"expected rank 2 or 3 and two or more widths, got {rank} and {tuple(widths)}")
        super().__init__()
        self.stride = 2 ** (len(widths) - 1)
        self.unpool = unpool
        self.pool = POOL[rank](2, return_indices=unpool)
        if unpool:
            self.unpooling = UNPOOL[rank](2)
        starts = (in_channels, *widths[:-1])
        self.down = nn.ModuleList(_level(rank, a, b) for a, b in zip(starts, widths, strict=True))
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.up = nn.ModuleList(
            CONVOLUTION[rank](below, here, 1) if unpool else TRANSPOSED[rank](below, here, 2, stride=2)
            for here, below in pairs
        )
        self.merge = nn.ModuleList(_level(rank, 2 * here, here) for here, _ in pairs)
        self.classifier = CONVOLUTION[rank](widths[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score every voxel.

        Args:
            x: (N, in_channels, *spatial), sides multiples of 2 ** (levels - 1).

        Returns:
            Scores (logits), (N, num_classes, *spatial).

        Raises:
            InputError: If a side does not fit.
        """
        if any(side % self.stride for side in x.shape[2:]):
            raise InputError(f"sides must be multiples of {self.stride}, got {tuple(x.shape[2:])}")
        skips: list[tuple[Tensor, Tensor | None]] = []
        for number, level in enumerate(self.down):
            x = level(x)
            if number < len(self.up):
                skip = x
                x, indices = self.pool(x) if self.unpool else (self.pool(x), None)
                skips.append((skip, indices))
        for number in reversed(range(len(self.up))):
            skip, indices = skips[number]
            x = self.up[number](x)
            x = x if indices is None else self.unpooling(x, indices)
            x = self.merge[number](torch.cat([skip, x], 1))
        scores: Tensor = self.classifier(x)
        return scores


def _level(rank: int, inputs: int, outputs: int) -> nn.Sequential:
    """Two times convolution, batch norm and ReLU."""
    steps: list[nn.Module] = []
    for channels in (inputs, outputs):
        steps += [
            CONVOLUTION[rank](channels, outputs, 3, padding=1, bias=False),
            NORM[rank](outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*steps)
