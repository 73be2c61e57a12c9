"""The grids that have a name."""

from __future__ import annotations

from nansparse.background import USUAL_MARGIN
from nansparse.errors import InputError
from nansparse.evaluation.axes import LAYER_AXES, MODEL_AXES, PLANS, SHARED
from nansparse.evaluation.grid import Block, Grid

_SHARES = (0, 0.3, 0.5, 0.67, 0.8, 0.9)
# The threshold sweep of the method's reviewers, and its tie tolerances (DESIGN of the method: 1e-7 to 1e-2).
_THRESHOLDS = (0.25, 0.5, 0.65, 0.75, 0.85, 1)
_EPSILONS = (1e-7, 1e-5, 1e-3, 1e-2)
_MODES = ("conservative", "aggressive")

# The time trials of arXiv 2601.17180: square inputs, one channel, 2x2 kernels, threshold 0.5.
_TRIALS: Block = {
    "size": ["10x10", "32x32", "100x100", "320x320", "1000x1000"],
    "channels": ["1"],
    "kernel": ["2"],
    "mask": ["sites"],
    "nan_ratio": [0.33, 0.5, 0.67, 0.75, 0.8, 0.9],
    "threshold": [0.5],
}
# Its published speed-ups, smallest and largest, over a convolution written as a Python loop.
PUBLISHED: dict[float, tuple[float, float]] = {
    0.33: (0.68, 0.97),
    0.5: (0.99, 1.18),
    0.67: (1.6, 2.0),
    0.75: (1.9, 2.3),
    0.9: (2.4, 2.7),
}

# Every mask at every share of NaN.
_CROSSOVER: Block = {
    "mask": ["sites", "border", "blob", "brain"],
    "nan_ratio": [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
    "plan": [SHARED],
}

# float32 with TF32, as torch runs convolutions where nobody says otherwise, and float16.
_ON_GPU: Block = {
    "mask": ["brain"],
    "nan_ratio": [0.5, 0.67, 0.8, 0.9],
    "dtype": ["float32", "float16"],
    "plan": [SHARED],
}

LAYER_PRESETS = {
    "quick": Grid(
        LAYER_AXES,
        (
            {"mask": ["blob", "sites"], "nan_ratio": [0, 0.5, 0.9]},
            {"size": ["48x48x48"], "channels": ["32"], "nan_ratio": [0, 0.5, 0.9]},
        ),
        repeats=9,
    ),
    # Where the engines' goals are stated: brain-like masks at the widths of the networks, with either plan;
    # and from which share of NaN on each engine beats dense, and what "auto" loses below it.
    "engines": Grid(
        LAYER_AXES,
        (
            {
                "size": ["256x256", "128x128"],
                "channels": ["64", "71", "32"],
                "mask": ["brain"],
                "nan_ratio": [0.5, 0.67, 0.8, 0.9],
                "plan": PLANS,
            },
            {
                "size": ["96x96x96"],
                "channels": ["32"],
                "mask": ["brain"],
                "nan_ratio": [0.5, 0.67, 0.8, 0.9],
                "plan": PLANS,
            },
            {"size": ["128x128"], "channels": ["16", "32", "64", "128"], **_CROSSOVER},
            {"size": ["40x40x40"], "channels": ["16", "32"], **_CROSSOVER},
            {"size": ["32x32x32"], "channels": ["64"], **_CROSSOVER},
            {"size": ["24x24x24"], "channels": ["128"], **_CROSSOVER},
        ),
        repeats=5,
    ),
    # For `--set device=cuda`: it takes a batch or a volume to fill a GPU.
    "gpu": Grid(
        LAYER_AXES,
        (
            {"size": ["256x256"], "batch": [1, 8, 32], "channels": ["64", "71"], **_ON_GPU},
            {"size": ["96x96x96", "160x160x160"], "channels": ["32"], **_ON_GPU},
        ),
        repeats=9,
    ),
    "paper": Grid(LAYER_AXES, (_TRIALS,), repeats=25),
    "full": Grid(
        LAYER_AXES,
        (
            {
                "size": ["256x256", "128x128"],
                "channels": ["16", "32", "64", "71", "128"],
                "mask": ["blob", "brain", "border", "sites", "cells"],
                "nan_ratio": [*_SHARES, 0.95],
            },
            {
                "size": ["64x64x64"],
                "channels": ["16", "32", "64"],
                "mask": ["blob", "brain", "sites"],
                "nan_ratio": [*_SHARES, 0.95],
            },
            {"kernel": ["1", "2", "5", "3x1"], "nan_ratio": [0, 0.5, 0.9]},
            {"stride": [2], "nan_ratio": [0, 0.5, 0.9]},
            {"dtype": ["bfloat16", "float64"], "nan_ratio": [0, 0.5, 0.9]},
            {"threads": [1], "nan_ratio": [0, 0.5, 0.9]},
            _TRIALS,
        ),
        repeats=15,
    ),
}

MODEL_PRESETS = {
    "quick": Grid(
        MODEL_AXES, ({"mode": _MODES, "threshold": (0.5, 1)}, {"background": (str(USUAL_MARGIN),)}), repeats=3
    ),
    "paper": Grid(
        MODEL_AXES,
        ({"mode": _MODES, "threshold": _THRESHOLDS}, {"background": ("none", "0", "4"), "threshold": (0.5,)}),
        repeats=5,
    ),
    # What a marked background costs and gains: the default margin follows from it (docs/background.md).
    "surface": Grid(
        MODEL_AXES,
        ({"background": ("0", "1", "2", "4", "6", "8"), "threshold": (0.25, 0.5, 0.75, 1)},),
        repeats=3,
    ),
    "full": Grid(
        MODEL_AXES,
        (
            {"mode": _MODES, "threshold": _THRESHOLDS, "epsilon": _EPSILONS, "max_ties": (1, 2)},
            {"mode": _MODES, "threshold": _THRESHOLDS, "background": ("0", "4", "8")},
        ),
        repeats=5,
    ),
}


def find_preset(presets: dict[str, Grid], name: str) -> Grid:
    """Find a preset.

    Args:
        presets: Those there are.
        name: Of one.

    Returns:
        Its grid.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in presets:
        raise InputError(f"unknown preset {name!r}; there are {', '.join(presets)}")
    return presets[name]
