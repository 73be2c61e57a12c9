"""Judging the denoiser on slices kept out of training: `nansparse zoo score denoiser`.

Against the volume without noise: the noisy slices themselves, a Gaussian filter at its best, and the network;
then the network under nansparse, mode by mode and threshold by threshold. PSNR and SSIM are those of
`nansparse.evaluation.intensity`; PSNR inside the brain relates errors there to the range of the whole volume.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import nansparse
from nansparse.errors import NothingToDoWarning
from nansparse.evaluation.intensity import psnr, ssim
from nansparse.imaging.slices import THICKNESS, to_slices
from nansparse.zoo.denoiser import load_denoiser
from nansparse.zoo.denoiser_data import add_rician_noise
from nansparse.zoo.tissue_data import PLANE, held_out_slices, load_tissue_data

LEVELS = (0.03, 0.05, 0.09)
# The level, and every how many slices, at which modes and thresholds are judged.
SWEPT_LEVEL, SWEPT_STEP = 0.05, 4
SETTINGS = tuple(
    (mode, threshold) for mode in ("conservative", "aggressive") for threshold in (1.0, 0.75, 0.5)
)
MARGIN = 4
# Standard deviations in voxels that the filter may choose from, and the training slices it chooses by.
WIDTHS = (0.4, 0.6, 0.8, 1.0, 1.3)
CHOOSING_SLICES = range(112, 132)
_SEED = 0


def score_denoiser(weights: str | Path | None = None, *, progress: bool = True) -> dict[str, Any]:
    """Judge the denoiser on the slices that training never showed it.

    Args:
        weights: A `.safetensors` file of `nansparse zoo train denoiser`; the shipped weights by default.
        progress: Whether to show a progress bar.

    Returns:
        "slices": how many were judged. "levels", one a level of noise: "level" (relative to the brightest
        tissue) and for each of "noisy", "gaussian" and "denoiser" the "psnr_db", "brain_psnr_db" and "ssim";
        "width_voxels", the filter's. "swept_level", "swept_slices", and "runs", one a background, mode and
        threshold: "psnr_db", "brain_psnr_db" and "ssim", "psnr_loss_db" (inside the brain, dense minus this
        run), "windows_skipped" and "macs_skipped" (shares).
    """
    from tqdm import tqdm

    model, data = load_denoiser(weights), load_tissue_data()
    clean = torch.from_numpy(to_slices(data.image.data, PLANE).astype(np.float32)) / 255
    brain = torch.from_numpy(to_slices(data.labels.data, PLANE) > 0)
    indices = held_out_slices()
    levels = [
        _level(model, clean, brain, indices, level)
        for level in tqdm(LEVELS, desc="levels of noise", disable=not progress)
    ]
    runs = _runs(model, clean, brain, indices[::SWEPT_STEP], progress=progress)
    return {
        "slices": len(indices),
        "levels": levels,
        "swept_level": SWEPT_LEVEL,
        "swept_slices": len(indices[::SWEPT_STEP]),
        "runs": runs,
    }


def noisy_volume(clean: Tensor, level: float, *, stripped: bool = False) -> Tensor:
    """Add noise to a volume, the same one every time.

    Args:
        clean: Slices in [0, 1], (S, H, W).
        level: Standard deviation of the noise.
        stripped: Whether the background is set to zero afterwards.

    Returns:
        The noisy slices, of the same shape.
    """
    noisy = add_rician_noise(clean, level, torch.Generator().manual_seed(_SEED))
    return noisy.masked_fill_(clean == 0, 0.0) if stripped else noisy


def slab_of(stack: Tensor, index: int) -> Tensor:
    """Cut one slice with its neighbours out of a stack.

    Args:
        stack: (S, H, W).
        index: Of the slice; its neighbours are inside the stack.

    Returns:
        (1, 7, H, W).
    """
    half = THICKNESS // 2
    return stack[None, index - half : index + half + 1]


def _denoised(model: nn.Module, slabs: Iterable[Tensor]) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(slab)[:, 0] for slab in slabs])


def _level(
    model: nn.Module, clean: Tensor, brain: Tensor, indices: list[int], level: float
) -> dict[str, Any]:
    noisy = noisy_volume(clean, level)
    width = _best_width(noisy, clean, brain)
    truth, inside = clean[indices], brain[indices]
    judged = partial(_measures, truth=truth, inside=inside)
    return {
        "level": level,
        "width_voxels": width,
        "noisy": judged(noisy[indices]),
        "gaussian": judged(_smoothed(noisy, width, indices)),
        "denoiser": judged(_denoised(model, (slab_of(noisy, index) for index in indices))),
    }


def _runs(
    model: nn.Module, clean: Tensor, brain: Tensor, indices: list[int], *, progress: bool
) -> list[dict[str, Any]]:
    from tqdm import tqdm

    inputs: dict[str, list[Tensor]] = {}
    for name, stripped in (("noise", False), ("zero", True)):
        noisy = noisy_volume(clean, SWEPT_LEVEL, stripped=stripped)
        inputs[name] = [slab_of(noisy, index) for index in indices]
    inputs["marked"] = [nansparse.mask_background(slab, margin=MARGIN) for slab in inputs["zero"]]
    judged = partial(_measures, truth=clean[indices], inside=brain[indices])
    dense = {name: judged(_denoised(model, inputs[name])) for name in ("noise", "zero")}
    dense["marked"] = dense["zero"]
    rows = []
    cells = [(name, *setting) for name in inputs for setting in SETTINGS]
    for name, mode, threshold in tqdm(cells, desc="modes and thresholds", disable=not progress):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingToDoWarning)  # the shares say it
            with nansparse.enable(model, mode=mode, threshold=threshold) as run:
                found = judged(_denoised(model, inputs[name]))
        rows.append(
            {
                "background": name,
                "mode": mode,
                "threshold": threshold,
                **found,
                "psnr_loss_db": dense[name]["brain_psnr_db"] - found["brain_psnr_db"],
                "windows_skipped": run.windows_skipped / run.windows,
                "macs_skipped": run.macs_skipped / run.macs,
            }
        )
    return rows


def _measures(images: Tensor, *, truth: Tensor, inside: Tensor) -> dict[str, float]:
    """Compare slices (N, H, W) with those without noise."""
    found, expected = images.clamp(0, 1).numpy(), truth.numpy()
    # Same peak for both, so that they can be compared: the mean squared error inside decides.
    spread = float(np.ptp(expected))
    error = float(np.mean((found[inside.numpy()] - expected[inside.numpy()]) ** 2))
    return {
        "psnr_db": psnr(found, expected),
        "brain_psnr_db": 10 * float(np.log10(spread**2 / error)) if error else float("inf"),
        "ssim": float(np.mean([ssim(a, b) for a, b in zip(found, expected, strict=True)])),
    }


def _best_width(noisy: Tensor, clean: Tensor, brain: Tensor) -> float:
    """Choose the filter's width on training slices, by its PSNR inside the brain."""
    chosen = list(CHOOSING_SLICES)

    def quality(width: float) -> float:
        smoothed = _smoothed(noisy, width, chosen)
        return _measures(smoothed, truth=clean[chosen], inside=brain[chosen])["brain_psnr_db"]

    return max(WIDTHS, key=quality)


def _smoothed(noisy: Tensor, width: float, indices: Sequence[int]) -> Tensor:
    """Smooth in 3D, only where it is looked at: the network sees the neighbours too."""
    from scipy.ndimage import gaussian_filter

    reach = THICKNESS // 2
    slices = []
    for index in indices:
        part = noisy[index - reach : index + reach + 1].numpy()
        slices.append(torch.from_numpy(gaussian_filter(part, width, radius=reach)[reach]))
    return torch.stack(slices)
