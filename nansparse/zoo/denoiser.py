"""The shipped denoiser: a small FONDUE trained on one template, for demonstration only.

Its card lies beside the weights, `weights/denoiser.md`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch
from torch import nn

from nansparse.zoo.checkpoints import load_weights
from nansparse.zoo.fondue import FONDUE

NUM_FILTERS = 16
WEIGHTS = "weights/denoiser.safetensors"
# Of the first convolution: filters that start as usual, and how much the others amplify.
PLAIN_FILTERS, NOISE_GAIN = 2, 8.0


def new_denoiser(generator: torch.Generator) -> FONDUE:
    """Create the denoiser with fresh weights; the caller's random state is left alone.

    Args:
        generator: Source of random numbers.

    Returns:
        The network, in training mode. Its parameters have the names of the published one; its feature maps
        have 16 channels for 64.
    """
    with torch.random.fork_rng(devices=[]):
        model = FONDUE(num_filters=NUM_FILTERS)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            # Maxima over all earlier nodes lift activations: the usual gain lets them grow a hundredfold.
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            nn.init.zeros_(module.bias)
            if name.startswith("final"):
                # It starts near the identity.
                with torch.no_grad():
                    module.weight.mul_(0.3)
    _see_noise(model)
    return model


def _see_noise(model: FONDUE) -> None:
    """Let most of the first filters sum to zero: they see the noise, amplified, and little of the anatomy.

    Noise is a twentieth of the signal. Filters that see both learn to take the background away and stop
    there.
    """
    weight = model.get_parameter("conv0_0.conv1.weight")
    with torch.no_grad():
        seeing = weight[PLAIN_FILTERS:]
        weight[PLAIN_FILTERS:] = NOISE_GAIN * (seeing - seeing.mean((1, 2, 3), keepdim=True))


def load_denoiser(weights: str | Path | None = None) -> FONDUE:
    """Load the trained denoiser.

    Args:
        weights: A `.safetensors` file of `nansparse zoo train denoiser`; the shipped weights by default.

    Returns:
        The network in eval mode, on the CPU. It takes seven neighbouring coronal slices of a conformed volume
        as `nansparse.imaging.slabs` makes them, (N, 7, H, W), and gives the middle one, (N, 1, H, W).
    """
    model = new_denoiser(torch.Generator())
    if weights is not None:
        load_weights(model, weights)
    else:
        with resources.as_file(resources.files("nansparse.zoo") / WEIGHTS) as path:
            load_weights(model, path)
    return model.eval().requires_grad_(False)
