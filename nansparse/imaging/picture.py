"""The demonstration's picture: image, labels, where NaN was at two depths, and what changed."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import nansparse
from nansparse.background import USUAL_MARGIN, mask_background
from nansparse.imaging.atomic import whole_file
from nansparse.imaging.slices import slabs
from nansparse.imaging.template import TISSUES
from nansparse.marked import MarkedTensor

if TYPE_CHECKING:
    from nansparse.evaluation.demonstration import Demonstration

# Colour-blind safe: background, CSF, grey, white.
COLOURS = ("#000000", "#56b4e9", "#999999", "#f0e442")
DEPTHS = ("decode3", "decode1")
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def nan_masks(
    model: nn.Module, x: torch.Tensor, names: tuple[str, ...], policy: nansparse.Policy
) -> dict[str, Mask]:
    """Record at which sites the outputs of some modules are missing.

    Args:
        model: The model.
        x: Its input, one sample.
        names: Dotted names of modules.
        policy: The options.

    Returns:
        Name to bool (H, W), True where all channels are NaN.
    """
    masks: dict[str, Mask] = {}
    options: dict[str, Any] = policy.to_dict()

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            del module, args
            out = out[0] if isinstance(out, tuple) else out  # pooling gives its indices too
            if isinstance(out, MarkedTensor):
                masks[name] = (~out.sparse().sites.mask[0]).numpy()
            else:
                masks[name] = np.zeros(tuple(out.shape[2:]), dtype=bool)

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        with torch.inference_mode(), nansparse.enable(model, **options):
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return masks


def draw_comparison(result: Demonstration, path: Path) -> Path:
    """Draw one slice: T1, dense labels, and for two runs the NaN masks at two depths, labels and difference.

    Args:
        result: What was measured.
        path: The PNG to write.

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from nansparse.evaluation import lineup

    figure = Figure(figsize=(15, 6.4), layout="constrained", facecolor="white")
    axes = figure.subplots(2, 6)
    number = 128 - result.first
    number = min(max(number, 0), len(result.ways[0].volume()) - 1)
    image = slabs(result.subject.conformed.data, lineup.PLANE, [result.first + number])
    dense = result.way(lineup.DENSE).volume()[number]
    for row, name in enumerate((lineup.CONSERVATIVE, lineup.MARGINED)):
        marked = mask_background(image, margin=USUAL_MARGIN) if name == lineup.MARGINED else image
        masks = nan_masks(result.model, marked, DEPTHS, result.policy)
        labels = result.way(name).volume()[number]
        changed = int((labels != dense).sum())
        _show(axes[row, 0], image[0, 3].numpy(), f"T1, coronal slice {result.first + number}", cmap="gray")
        _show(axes[row, 1], dense, "dense labels", labels=True)
        _show(axes[row, 2], labels, name, labels=True)
        for column, depth in enumerate(DEPTHS, start=3):
            share = 100 * masks[depth].mean()
            _show(axes[row, column], masks[depth], f"NaN after {depth}: {share:.0f} %", cmap="magma")
        _show(axes[row, 5], labels != dense, f"differs from dense: {changed} voxels", cmap="gray_r")
    _legend(figure)
    canvas = FigureCanvasAgg(figure)
    with whole_file(path) as unfinished:
        canvas.figure.savefig(unfinished, dpi=90, format="png")
    return path


def _show(axis: Any, image: Any, title: str, *, cmap: str | None = None, labels: bool = False) -> None:
    from matplotlib.colors import ListedColormap

    # (height, width) = (left, down): turned so that the head is upright.
    picture = np.asarray(image).astype(float).T
    if labels:
        axis.imshow(
            picture, cmap=ListedColormap(COLOURS), vmin=0, vmax=len(COLOURS) - 1, interpolation="nearest"
        )
    else:
        axis.imshow(picture, cmap=cmap, vmin=0, interpolation="nearest", vmax=max(float(picture.max()), 1e-9))
    axis.set_title(textwrap.fill(title, 32), fontsize=10)
    axis.set_xticks([])
    axis.set_yticks([])


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    names = {"csf": "CSF, other", "grey": "grey matter", "white": "white matter"}
    patches = [
        Patch(facecolor=c, edgecolor="black", label=names.get(t, t))
        for t, c in zip(TISSUES, COLOURS, strict=True)
    ]
    figure.legend(handles=patches, loc="outside lower center", ncol=len(patches), fontsize=10, frameon=False)
