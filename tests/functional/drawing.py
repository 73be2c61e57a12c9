"""Drawn examples: grids, kernels and their options, activations with NaN, and how results are compared."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

# Literals a user writes; windows of 4, 8, 10, 20 or 100 cells meet some of them exactly.
THRESHOLDS = (0.1, 0.25, 0.3, 0.35, 0.5, 0.57, 0.7, 0.75, 1.0)
NAN_PATTERNS = ("none", "few", "half", "most", "all", "sites", "channels", "one sample")
EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}
COARSE = {torch.float16: 4e-3, torch.bfloat16: 3e-2}

thresholds = st.sampled_from(THRESHOLDS)
dtypes = st.sampled_from(sorted(EXACT, key=str))
seeds = st.integers(0, 2**32 - 1)


class Geometry(NamedTuple):
    grid: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]


class Channels(NamedTuple):
    groups: int
    inputs: int
    outputs: int


@st.composite
def geometries(draw: st.DrawFn, *, pooling: bool = False) -> Geometry:
    """Windows of which one at least fits the padded grid: axes of 1 and kernels larger than the grid too."""
    rank = draw(st.sampled_from((2, 2, 3)))
    kernels = (1, 2, 3, 4, 5) if rank == 2 else (1, 2, 3)
    axes = []
    for _ in range(rank):
        kernel = draw(st.sampled_from(kernels))
        dilation = draw(st.sampled_from((1, 1, 2)))
        padding = draw(st.integers(0, kernel // 2 if pooling else 2))
        span = dilation * (kernel - 1) + 1
        # With dilation, a pooling window could step over a small grid and meet none of its cells.
        smallest = max(1, span - 2 * padding, dilation if pooling and padding else 1)
        size = draw(st.integers(smallest, max(smallest, 6 if rank == 2 else 4)))
        axes.append((size, kernel, draw(st.integers(1, 3)), padding, dilation))
    return Geometry(*zip(*axes, strict=True))


@st.composite
def channel_counts(draw: st.DrawFn) -> Channels:
    """Dense, grouped and depthwise; widths that no vector unit likes."""
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    return Channels(groups, groups * draw(st.sampled_from((1, 2, 5))), groups * draw(st.integers(1, 2)))


def values(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers, rounded to the dtype."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def levels(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64, count: int = 4) -> Tensor:
    """Few distinct numbers, exact in every dtype: ties everywhere."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-1, count - 1, shape) / 2.0).to(dtype)


def distinct(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """No two numbers alike or close."""
    order = np.random.default_rng(seed).permutation(math.prod(shape)).reshape(shape)
    return torch.from_numpy(order - order.size // 2).to(dtype)


def with_nan(x: Tensor, pattern: str, seed: int) -> Tensor:
    """Mark cells, whole sites or whole channels of (N, C, *spatial)."""
    rng = np.random.default_rng(seed)
    shape = list(x.shape)
    share = {"few": 0.1, "half": 0.5, "most": 0.8, "all": 1.1, "none": 0.0}.get(pattern, 0.5)
    if pattern == "sites":
        shape[1] = 1
    elif pattern == "channels":
        shape[2:] = [1] * (len(shape) - 2)
    holes = torch.from_numpy(rng.random(shape) < share).expand(x.shape).clone()
    if pattern == "one sample" and len(x):
        holes[:] = False
        holes[-1] = True
    return x.masked_fill(holes, torch.nan)


def as_array(x: Tensor) -> np.ndarray:
    """Half types as float32: they fit it exactly."""
    return (x.float() if x.dtype in COARSE else x).numpy()


def assert_matches(actual: Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Same shape, same NaN mask exactly, same values relative to the largest of them."""
    found = actual.double().numpy()
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)
