"""Xception: an image classifier of depthwise separable convolutions.

Published as Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (arXiv 1610.02357).
Written anew, with the parameter names of the PyTorch port whose ImageNet weights are widely used. Its pooling
windows overlap: 3 x 3, stride 2, padding 1. All tensors are (N, C, H, W).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nansparse.errors import InputError

ENTRY, MIDDLE, EXIT = (64, 128, 256, 728), 728, (1024, 1536, 2048)


class _Separable(nn.Module):
    """A 3 x 3 convolution channel by channel, and a 1 x 1 convolution across them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.pointwise(self.conv1(x))
        return result


class _Block(nn.Module):
    """Two or three separable convolutions beside a skip connection."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        repeats: int,
        *,
        pooled: bool = False,
        start_with_relu: bool = True,
        grow_first: bool = True,
    ) -> None:
        """Create the layers.

        Args:
            inputs: Channels of the input.
            outputs: Channels of the output.
            repeats: Separable convolutions.
            pooled: Whether the block halves the grid.
            start_with_relu: Whether an activation comes first.
            grow_first: Whether the first convolution changes the number of channels, or the last.
        """
        super().__init__()
        self.skip = nn.Conv2d(inputs, outputs, 1, stride=2 if pooled else 1, bias=False) if pooled else None
        if pooled:
            self.skipbn = nn.BatchNorm2d(outputs)
        widths = [inputs] + [outputs if grow_first else inputs] * (repeats - 1) + [outputs]
        steps: list[nn.Module] = []
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            steps += [nn.ReLU(), _Separable(before, after), nn.BatchNorm2d(after)]
        steps = steps if start_with_relu else steps[1:]
        self.rep = nn.Sequential(*steps, *([nn.MaxPool2d(3, stride=2, padding=1)] if pooled else []))

    def forward(self, x: Tensor) -> Tensor:
        """Run the block.

        Args:
            x: (N, inputs, H, W).

        Returns:
            (N, outputs, H', W'), the sides halved (rounded up) if the block pools.
        """
        skip = x if self.skip is None else self.skipbn(self.skip(x))
        result: Tensor = self.rep(x) + skip
        return result


class Xception(nn.Module):
    """The classifier.

    Args:
        num_classes: Classes.
        width: Factor on every number of channels, for small instances; 1 as published.
        middle_blocks: Blocks of the middle flow; 8 as published.
    """

    def __init__(self, *, num_classes: int = 1000, width: float = 1.0, middle_blocks: int = 8) -> None:
        if not 0 < width <= 1 or not 0 <= middle_blocks <= 8:
            raise InputError(
                f"expected width in (0, 1] and 0 to 8 middle blocks, got {width} and {middle_blocks}"
            )
        super().__init__()
        self.middle_blocks = middle_blocks
        stem, *entry = (max(1, round(width * c)) for c in (32, *ENTRY))
        middle = max(1, round(width * MIDDLE))
        last, wide, wider = (max(1, round(width * c)) for c in EXIT)
        self.conv1 = nn.Conv2d(3, stem, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, entry[0], 3, bias=False)
        self.bn2 = nn.BatchNorm2d(entry[0])
        self.block1 = _Block(entry[0], entry[1], 2, pooled=True, start_with_relu=False)
        self.block2 = _Block(entry[1], entry[2], 2, pooled=True)
        self.block3 = _Block(entry[2], middle, 2, pooled=True)
        for number in range(4, 4 + middle_blocks):
            self.add_module(f"block{number}", _Block(middle, middle, 3))
        self.block12 = _Block(middle, last, 2, pooled=True, grow_first=False)
        self.conv3 = _Separable(last, wide)
        self.bn3 = nn.BatchNorm2d(wide)
        self.conv4 = _Separable(wide, wider)
        self.bn4 = nn.BatchNorm2d(wider)
        self.fc = nn.Linear(wider, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Score an image.

        Args:
            x: Images normalized to [-1, 1], (N, 3, H, W), 299 x 299 as published.

        Returns:
            Scores (logits), (N, num_classes).
        """
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        for number in (1, 2, 3, *range(4, 4 + self.middle_blocks), 12):
            x = self.get_submodule(f"block{number}")(x)
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.relu(self.bn4(self.conv4(x)))
        scores: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores
