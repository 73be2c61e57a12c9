"""The digit classifier of arXiv 2601.17180: nothing but convolutions. A trained instance is shipped.

Its card lies beside the weights, `weights/digits.md`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nansparse.zoo.checkpoints import load_weights

WEIGHTS = "weights/digits.safetensors"


class DigitsCNN(nn.Module):
    """Four convolutions, 2 x 2 max pooling after each of the first three, an average over what is left.

    Parameter names and sizes are those of the published network. It ends in a maximum over single cells and
    reads its first ten outputs; here, each of the ten classes has one map, averaged over space.

    Args:
        in_channels: Channels of the image.
        num_classes: Classes.
        pool_first: Whether to pool before the rectifier, not after it as published. The two commute, so the
            dense scores are the same to the last bit, with the same weights; but a channel that is switched
            off no longer ties with itself.
    """

    def __init__(self, *, in_channels: int = 1, num_classes: int = 10, pool_first: bool = False) -> None:
        super().__init__()
        self.pool_first = pool_first
        self.conv1 = nn.Conv2d(in_channels, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv4 = nn.Conv2d(128, num_classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Score an image.

        Args:
            x: Images in [0, 1], (N, in_channels, H, W), H and W at least 8; trained at 28 x 28.

        Returns:
            Scores (logits), (N, num_classes).
        """
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = convolution(x)
            x = F.relu(F.max_pool2d(x, 2)) if self.pool_first else F.max_pool2d(F.relu(x), 2)
        return F.adaptive_avg_pool2d(self.conv4(x), 1).flatten(1)


def new_digits_model(generator: torch.Generator) -> DigitsCNN:
    """Create the classifier with fresh weights; the caller's random state is left alone.

    Args:
        generator: Source of random numbers.

    Returns:
        The network, in training mode.
    """
    with torch.random.fork_rng(devices=[]):
        model = DigitsCNN()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(module.bias)
    return model


def load_digits_model(weights: str | Path | None = None, *, pool_first: bool = False) -> DigitsCNN:
    """Load the trained digit classifier.

    Args:
        weights: A `.safetensors` file of `nansparse zoo train digits`; the shipped weights by default.
        pool_first: Whether to pool before the rectifier; see `DigitsCNN`.

    Returns:
        The network in eval mode, on the CPU.
    """
    model = new_digits_model(torch.Generator())
    if weights is not None:
        load_weights(model, weights)
    else:
        with resources.as_file(resources.files("nansparse.zoo") / WEIGHTS) as path:
            load_weights(model, path)
    model.pool_first = pool_first
    return model.eval().requires_grad_(False)
