"""Transposed convolution against the naive loop, and against torch where nothing is NaN."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nansparse.functional import nan_conv_transpose
from tests.functional import drawing, reference

NAMESAKES = {2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Transposed(NamedTuple):
    grid: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]


@st.composite
def transposed_geometries(draw: st.DrawFn) -> Transposed:
    """Strides beyond the kernel (outputs that read nothing) and cropped outputs are among them."""
    rank = draw(st.sampled_from((2, 2, 3)))
    axes = []
    for _ in range(rank):
        size, kernel = (
            draw(st.integers(1, 4 if rank == 2 else 3)),
            draw(st.integers(1, 4 if rank == 2 else 3)),
        )
        stride, dilation = draw(st.integers(1, 3)), draw(st.sampled_from((1, 1, 2)))
        extra = draw(st.integers(0, max(stride, dilation) - 1))
        full = (size - 1) * stride + dilation * (kernel - 1) + extra + 1
        padding = draw(st.integers(0, min(2, (full - 1) // 2)))
        axes.append((size, kernel, stride, padding, extra, dilation))
    return Transposed(*zip(*axes, strict=True))


def weights(seed: int, channels: drawing.Channels, kernel: tuple[int, ...], dtype: torch.dtype):
    per_group = channels.outputs // channels.groups
    weight = drawing.values(seed + 1, (channels.inputs, per_group, *kernel), dtype)
    scale = math.sqrt(channels.inputs * math.prod(kernel))
    return weight / scale, drawing.values(seed + 2, (channels.outputs,), dtype)


@given(
    geometry=transposed_geometries(),
    channels=drawing.channel_counts(),
    batch=st.sampled_from((0, 1, 2)),
    pattern=st.sampled_from(drawing.NAN_PATTERNS),
    threshold=drawing.thresholds,
    has_bias=st.booleans(),
    dtype=st.sampled_from((torch.float64, torch.float32, torch.float16, torch.bfloat16)),
    seed=drawing.seeds,
)
@settings(max_examples=250)
def test_as_defined(geometry, channels, batch, pattern, threshold, has_bias, dtype, seed):
    grid, kernel, stride, padding, output_padding, dilation = geometry
    x = drawing.with_nan(drawing.values(seed, (batch, channels.inputs, *grid), dtype), pattern, seed)
    weight, bias = weights(seed, channels, kernel, dtype)
    bias = bias if has_bias else None
    options = (stride, padding, output_padding, channels.groups, dilation)
    out = nan_conv_transpose(x, weight, bias, *options, threshold=threshold)
    expected = reference.conv_transpose(
        drawing.as_array(x),
        drawing.as_array(weight),
        None if bias is None else drawing.as_array(bias),
        *options,
        threshold,
    )
    assert out.dtype == dtype
    drawing.assert_matches(out, expected.values, (drawing.EXACT | drawing.COARSE)[dtype])


@given(
    geometry=transposed_geometries(),
    channels=drawing.channel_counts(),
    batch=st.sampled_from((0, 1, 2)),
    dtype=drawing.dtypes,
    seed=drawing.seeds,
)
@settings(max_examples=60)
def test_without_nan_it_is_torch_bit_for_bit(geometry, channels, batch, dtype, seed):
    grid, kernel, stride, padding, output_padding, dilation = geometry
    x = drawing.values(seed, (batch, channels.inputs, *grid), dtype)
    weight, bias = weights(seed, channels, kernel, dtype)
    options = (stride, padding, output_padding, channels.groups, dilation)
    expected = NAMESAKES[len(grid)](x, weight, bias, *options)
    assert torch.equal(nan_conv_transpose(x, weight, bias, *options), expected)


def test_stride_gaps_are_no_cells():
    # Kernel 2, stride 2: every output reads one cell, so one NaN cell is the whole of each window it reaches.
    x = torch.ones(1, 1, 2, 2)
    x[0, 0, 0, 1] = torch.nan
    out = nan_conv_transpose(x, torch.ones(1, 1, 2, 2), stride=2, threshold=1.0)
    assert out.isnan().sum() == 4
    assert out[0, 0, :2, 2:].isnan().all()


def test_positions_outside_the_input_are_zeros_in_the_window():
    # Kernel 3, stride 1: the corner output reads one NaN cell and eight positions outside.
    x = torch.full((1, 1, 1, 1), torch.nan)
    out = nan_conv_transpose(x, torch.ones(1, 1, 3, 3), threshold=1 / 8)
    assert not out.isnan().any()
    assert torch.equal(out, torch.zeros(1, 1, 3, 3))  # the mean of eight zeros
    assert nan_conv_transpose(x, torch.ones(1, 1, 3, 3), threshold=0.1).isnan().all()


@pytest.mark.parametrize("threshold", [0.1, 1.0])
def test_an_output_that_reads_nothing_is_the_bias(threshold):
    x = torch.full((1, 1, 2, 2), torch.nan)
    out = nan_conv_transpose(x, torch.ones(1, 1, 1, 1), torch.tensor([5.0]), stride=2, threshold=threshold)
    assert out.isnan().nonzero()[:, 2:].tolist() == [[0, 0], [0, 2], [2, 0], [2, 2]]
    assert (out[~out.isnan()] == 5.0).all()
