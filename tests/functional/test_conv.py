"""Convolution against the naive loop, and against torch where nothing is NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nansparse.functional import nan_conv, skipped_windows
from tests.functional import drawing, reference

NAMESAKES = {2: F.conv2d, 3: F.conv3d}
ALL_DTYPES = st.sampled_from((torch.float64, torch.float32, torch.float16, torch.bfloat16))

# torch copies the input for padding='same' with an even kernel, and says so once.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")


def weights(seed: int, channels: drawing.Channels, kernel: tuple[int, ...], dtype: torch.dtype):
    per_group = channels.inputs // channels.groups
    weight = drawing.values(seed + 1, (channels.outputs, per_group, *kernel), dtype)
    return weight / math.sqrt(weight[0].numel()), drawing.values(seed + 2, (channels.outputs,), dtype)


@given(
    geometry=drawing.geometries(),
    channels=drawing.channel_counts(),
    batch=st.sampled_from((0, 1, 2)),
    pattern=st.sampled_from(drawing.NAN_PATTERNS),
    threshold=drawing.thresholds,
    has_bias=st.booleans(),
    dtype=ALL_DTYPES,
    seed=drawing.seeds,
)
@settings(max_examples=250)
def test_as_defined(geometry, channels, batch, pattern, threshold, has_bias, dtype, seed):
    grid, kernel, stride, padding, dilation = geometry
    x = drawing.with_nan(drawing.values(seed, (batch, channels.inputs, *grid), dtype), pattern, seed)
    weight, bias = weights(seed, channels, kernel, dtype)
    bias = bias if has_bias else None
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels.groups}
    out = nan_conv(x, weight, bias, **options, threshold=threshold)
    expected = reference.conv(
        drawing.as_array(x),
        drawing.as_array(weight),
        None if bias is None else drawing.as_array(bias),
        stride,
        padding,
        padding,
        dilation,
        channels.groups,
        threshold,
    )
    assert out.dtype == dtype
    drawing.assert_matches(out, expected.values, (drawing.EXACT | drawing.COARSE)[dtype])
    skipped = skipped_windows(x, kernel, **options, threshold=threshold)
    assert skipped.dtype == torch.bool
    np.testing.assert_array_equal(skipped.numpy(), expected.skipped)


@given(
    kernel=st.sampled_from(((1, 1), (2, 2), (3, 1), (4, 3), (5, 2), (2, 1, 3))),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(("same", "valid")),
    pattern=st.sampled_from(drawing.NAN_PATTERNS),
    threshold=drawing.thresholds,
    seed=drawing.seeds,
)
@settings(max_examples=60)
def test_padding_by_name(kernel, dilation, padding, pattern, threshold, seed):
    rank = len(kernel)
    dilations = (dilation,) * rank
    grid = tuple(2 * (k - 1) + 2 for k in kernel)
    x = drawing.with_nan(drawing.values(seed, (1, 2, *grid)), pattern, seed)
    weight, bias = weights(seed, drawing.Channels(1, 2, 2), kernel, torch.float64)
    low, high = reference.same_padding(kernel, dilations) if padding == "same" else ((0,) * rank,) * 2
    expected = reference.conv(
        x.numpy(), weight.numpy(), bias.numpy(), (1,) * rank, low, high, dilations, 1, threshold
    )
    out = nan_conv(x, weight, bias, padding=padding, dilation=dilation, threshold=threshold)
    drawing.assert_matches(out, expected.values, 1e-10)
    skipped = skipped_windows(x, kernel, padding=padding, dilation=dilation, threshold=threshold)
    np.testing.assert_array_equal(skipped.numpy(), expected.skipped)


@given(
    geometry=drawing.geometries(),
    channels=drawing.channel_counts(),
    batch=st.sampled_from((0, 1, 2)),
    dtype=drawing.dtypes,
    seed=drawing.seeds,
)
@settings(max_examples=60)
def test_without_nan_it_is_torch_bit_for_bit(geometry, channels, batch, dtype, seed):
    grid, kernel, stride, padding, dilation = geometry
    x = drawing.values(seed, (batch, channels.inputs, *grid), dtype)
    weight, bias = weights(seed, channels, kernel, dtype)
    options = (stride, padding, dilation, channels.groups)
    assert torch.equal(nan_conv(x, weight, bias, *options), NAMESAKES[len(grid)](x, weight, bias, *options))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 2, 3)])
def test_without_nan_named_padding_is_that_of_torch(padding, kernel):
    x, weight = drawing.values(0, (2, 3, *[6] * len(kernel))), drawing.values(1, (4, 3, *kernel))
    expected = NAMESAKES[len(kernel)](x, weight, padding=padding)
    assert torch.equal(nan_conv(x, weight, padding=padding), expected)


def test_one_nan_takes_the_mean_of_its_window_padding_included():
    x = torch.tensor([[[[torch.nan, 2.0], [4.0, 6.0]]]], dtype=torch.float64)
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1, 1] = 1.0  # picks the window's middle
    out = nan_conv(x, weight, padding=1)
    assert out[0, 0, 0, 0].item() == (2 + 4 + 6 + 5 * 0) / 8


def test_the_mean_is_that_of_the_group_and_the_sample():
    x = torch.ones(2, 4, 1, 2, dtype=torch.float64)
    x[0, 2:] = 3.0
    x[1] = 9.0
    x[:, ::2, 0, 0] = torch.nan
    out = nan_conv(x, torch.ones(2, 2, 1, 2, dtype=torch.float64), groups=2)
    torch.testing.assert_close(out.flatten(), torch.tensor([4.0, 12.0, 36.0, 36.0], dtype=torch.float64))


def test_infinities_are_real_cells_and_stay_in_their_windows():
    x = drawing.with_nan(drawing.values(0, (1, 2, 6, 6)).abs(), "few", 0)
    x[0, 0, 2, 2] = math.inf
    weight = drawing.values(1, (3, 2, 3, 3)).abs() + 0.1
    expected = reference.conv(x.numpy(), weight.numpy(), None, (1, 1), (1, 1), (1, 1), (1, 1), 1, 0.5)
    assert np.isinf(expected.values).any()
    drawing.assert_matches(nan_conv(x, weight, padding=1), expected.values, 1e-10)
