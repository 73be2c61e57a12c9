"""FONDUE: a nested U-Net of maxout blocks that denoises a slice from seven neighbours.

Published as "FONDUE: Robust resolution-invariant denoising of MR images using nested UNets" (bioRxiv
2023.06.04.543602). Written anew, in the light variant without batch norm (FONDUE_LT) that arXiv 2601.17180
measures, with its parameter names. Node (i, j) of the nested grid lies i levels down and has j nodes before
it on its level. It competes, through a maximum, with all of those and with node (i + 1, j - 1) brought up:

* level 0 has the voxel size of the image, level 1 the inner one: bilinear interpolation leads from 0 to 1 and
  from 1 back to 0;
* below, 2 x 2 max pooling (ceil_mode) leads down, and unpooling with its indices back up.

All tensors are (N, C, H, W).
"""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nansparse.errors import InputError

LEVELS = 6
# The published network scores the last three nodes of level 0 with one convolution; final5 and final6 are in
# its checkpoints and are never read.
SCORED_BY = (1, 2, 3, 4, 4, 4)


class _Block(nn.Module):
    """Three convolutions with competition between them and one shared PReLU."""

    def __init__(self, in_channels: int, num_filters: int, *, first: bool = False) -> None:
        """Create the layers.

        Args:
            in_channels: Channels of the input.
            num_filters: Channels of every feature map.
            first: Whether this is the block of the image itself, which starts without a PReLU.
        """
        super().__init__()
        self.first = first
        self.relu1 = nn.PReLU()
        self.conv1 = nn.Conv2d(in_channels, num_filters, 3, padding=1)
        self.conv2 = nn.Conv2d(num_filters, num_filters, 3, padding=1)
        self.conv3 = nn.Conv2d(num_filters, num_filters, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block.

        Args:
            x: (N, in_channels, H, W).

        Returns:
            (N, num_filters, H, W).
        """
        if self.first:
            x = self.relu1(self.conv1(x))
        else:
            x = torch.maximum(x, self.conv1(self.relu1(x)))
            x = torch.maximum(x, self.conv2(self.relu1(x)))
            return self.conv3(self.relu1(x))
        x = torch.maximum(x, self.conv2(x))
        return self.conv3(self.relu1(x))


class FONDUE(nn.Module):
    """The denoiser.

    Args:
        in_channels: Neighbouring slices per input, odd; the middle one is denoised.
        num_classes: Channels of the output.
        num_filters: Channels of every feature map.
        levels: Levels below the image's own; 6 as published, 2 or more.
        multiple: The inner size is a multiple of this; 32 as published. With 1, odd sizes reach the poolings.
    """

    def __init__(
        self,
        *,
        in_channels: int = 7,
        num_classes: int = 1,
        num_filters: int = 64,
        levels: int = LEVELS,
        multiple: int = 32,
    ) -> None:
        if in_channels % 2 == 0 or not 2 <= levels <= LEVELS or multiple < 1:
            raise InputError(
                f"expected an odd number of slices, 2 to {LEVELS} levels and a multiple of at least 1, "
                f"got {in_channels}, {levels} and {multiple}"
            )
        super().__init__()
        self.in_channels, self.levels, self.multiple = in_channels, levels, multiple
        self.pool = nn.MaxPool2d(2, 2, return_indices=True, ceil_mode=True)
        # An odd side was pooled with a last, half-empty window: its unpooling ends one cell earlier.
        self.up_even = nn.MaxUnpool2d((2, 2), stride=(2, 2))
        self.up_odd_both = nn.MaxUnpool2d((1, 1), stride=(2, 2))
        self.up_odd_h = nn.MaxUnpool2d((1, 2), stride=(2, 2))
        self.up_odd_w = nn.MaxUnpool2d((2, 1), stride=(2, 2))
        for number in range(1, 5):
            # Not read either; in every checkpoint.
            self.register_parameter(f"lambda_{number}", nn.Parameter(torch.full((1,), 1 / 4)))
        for number in range(1, LEVELS + 1):
            self.register_parameter(f"alpha_{number}", nn.Parameter(torch.full((1,), 1 / LEVELS)))
        for i in range(levels + 1):
            for j in range(levels + 1 - i):
                first = i == j == 0
                block = _Block(in_channels if first else num_filters, num_filters, first=first)
                self.add_module(f"conv{i}_{j}", block)
        self.norm_intensity = nn.Hardtanh(0.0, 1.0)
        for number in range(1, LEVELS + 1):
            self.add_module(f"final{number}", nn.Conv2d(num_filters, num_classes, 1))

    def forward(self, x: Tensor, voxel_size: float = 1.0) -> Tensor:
        """Denoise the middle slice.

        Args:
            x: Slices scaled to [0, 1], (N, in_channels, H, W), of any size.
            voxel_size: Edge of a pixel in mm; level 1 works at 1 mm.

        Returns:
            The middle slice without noise, (N, num_classes, H, W), in [0, 1].
        """
        inner = [self.multiple * round(side * voxel_size / self.multiple + 1) for side in x.shape[2:]]
        nodes = [[self._node(0, 0)(x)]]
        nodes.append([self._node(1, 0)(_resized(nodes[0][0], inner))])
        pools: list[tuple[Tensor, nn.MaxUnpool2d]] = []
        for i in range(2, self.levels + 1):
            above = nodes[i - 1][0]
            pooled, indices = self.pool(above)
            pools.append((indices, self._unpool_for(above)))
            nodes.append([self._node(i, 0)(pooled)])
        for j in range(1, self.levels + 1):
            for i in range(self.levels - j, -1, -1):
                below = nodes[i + 1][j - 1]
                if i == 0:
                    up = _resized(below, list(x.shape[2:]))
                else:
                    indices, unpool = pools[i - 1]
                    up = unpool(below, indices)
                nodes[i].append(self._node(i, j)(reduce(torch.maximum, [*nodes[i], up])))
        noise, total = 0.0, 0.0
        for number, features in enumerate(nodes[0][1:], start=1):
            weight = getattr(self, f"alpha_{number}")
            noise = noise + getattr(self, f"final{SCORED_BY[number - 1]}")(features) * weight
            total = total + weight
        middle = self.in_channels // 2
        denoised: Tensor = self.norm_intensity(x[:, middle : middle + 1] - noise / total)
        return denoised

    def _node(self, i: int, j: int) -> nn.Module:
        return self.get_submodule(f"conv{i}_{j}")

    def _unpool_for(self, x: Tensor) -> nn.MaxUnpool2d:
        odd_height, odd_width = (side % 2 == 1 for side in x.shape[2:])
        if odd_height:
            return self.up_odd_both if odd_width else self.up_odd_h
        return self.up_odd_w if odd_width else self.up_even


def _resized(x: Tensor, size: list[int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
