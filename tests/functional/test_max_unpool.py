"""Max unpooling against the naive loop, against torch, and where windows overlap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nansparse.functional import nan_max_pool, nan_max_unpool
from tests.functional import drawing, reference

NAMESAKES = {2: F.max_unpool2d, 3: F.max_unpool3d}


@given(
    geometry=drawing.geometries(pooling=True),
    mode=st.sampled_from(("conservative", "aggressive")),
    batch=st.sampled_from((0, 1, 2)),
    pattern=st.sampled_from(drawing.NAN_PATTERNS),
    dtype=st.sampled_from((torch.float64, torch.float32, torch.float16, torch.bfloat16)),
    seed=drawing.seeds,
)
@settings(max_examples=250)
def test_pool_then_unpool_as_defined(geometry, mode, batch, pattern, dtype, seed):
    grid, kernel, stride, padding, _ = geometry
    x = drawing.with_nan(drawing.levels(seed, (batch, 2, *grid), dtype), pattern, seed)
    pooled = nan_max_pool(x, kernel, stride, padding, mode=mode)
    out = nan_max_unpool(
        pooled.values, pooled.indices, kernel, stride, padding, output_size=grid, ties=pooled.ties
    )
    ties = None if pooled.ties is None else pooled.ties.numpy()
    expected = reference.max_unpool(drawing.as_array(pooled.values), pooled.indices.numpy(), grid, ties)
    assert out.dtype == dtype
    np.testing.assert_array_equal(drawing.as_array(out), expected)


@given(
    kernel=st.sampled_from(((1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (1, 2, 1), (2, 2, 2))), seed=drawing.seeds
)
@settings(max_examples=40)
def test_without_nan_it_is_torch(kernel, seed):
    grid = tuple(3 * size for size in kernel)
    rank = len(kernel)
    x = drawing.distinct(seed, (2, 3, *grid))
    pooled = nan_max_pool(x, kernel, mode="conservative")
    expected = NAMESAKES[rank](pooled.values, pooled.indices, kernel)
    assert torch.equal(nan_max_unpool(pooled.values, pooled.indices, kernel, ties=pooled.ties), expected)


@pytest.mark.parametrize("size", [5, 7])
@pytest.mark.parametrize("wanted", ["grid", "shape"])
def test_output_size_is_understood_as_torch_does(size, wanted):
    x = drawing.distinct(0, (1, 2, size, size))
    pooled = nan_max_pool(x, 2, mode="conservative")
    output_size = x.shape[2:] if wanted == "grid" else x.shape
    out = nan_max_unpool(pooled.values, pooled.indices, 2, output_size=output_size, ties=pooled.ties)
    assert torch.equal(out, F.max_unpool2d(pooled.values, pooled.indices, 2, output_size=output_size))


@pytest.mark.parametrize("kernel", [(1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_thin_kernels(kernel, mode):
    x = torch.tensor([[[[1.0, 1.0], [1.0, 2.0]]]])
    pooled = nan_max_pool(x, kernel, mode=mode)
    out = nan_max_unpool(pooled.values, pooled.indices, kernel, ties=pooled.ties)
    nan = torch.nan
    expected = {
        ((1, 1), "conservative"): [1.0, 1.0, 1.0, 2.0],
        ((1, 1), "aggressive"): [1.0, 1.0, 1.0, 2.0],
        ((1, 2), "conservative"): [nan, nan, 0.0, 2.0],
        ((1, 2), "aggressive"): [nan, 0.0, 0.0, 2.0],
        ((2, 1), "conservative"): [nan, 0.0, nan, 2.0],
        ((2, 1), "aggressive"): [nan, 0.0, 0.0, 2.0],
    }[kernel, mode]
    torch.testing.assert_close(out.flatten(), torch.tensor(expected), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_where_windows_overlap_nan_wins(order):
    values = torch.tensor([5.0, torch.nan])[order].reshape(1, 1, 1, 2)
    indices = torch.full((1, 1, 1, 2), 1)
    out = nan_max_unpool(values, indices, (1, 2), 1)
    assert out.isnan().flatten().tolist() == [False, True, False]


def test_a_tie_of_one_window_outlives_the_value_of_another():
    x = torch.tensor(
        [[[[1.0, 1.0, 0.0]]]]
    )  # windows {1, 1} and {1, 0}: the second is stable and points at a tie
    pooled = nan_max_pool(x, (1, 2), 1, mode="conservative")
    out = nan_max_unpool(pooled.values, pooled.indices, (1, 2), 1, ties=pooled.ties)
    assert out.isnan().flatten().tolist() == [True, True, False]


def test_values_changed_between_pooling_and_unpooling_land_at_their_index():
    x = drawing.distinct(3, (1, 1, 4, 4))
    pooled = nan_max_pool(x, 2, mode="conservative")
    out = nan_max_unpool(-2 * pooled.values, pooled.indices, 2, ties=pooled.ties)
    expected = reference.max_unpool(-2 * pooled.values.numpy(), pooled.indices.numpy(), (4, 4))
    np.testing.assert_array_equal(out.numpy(), expected)


@pytest.mark.parametrize("index", [-1, 16, 2**40])
def test_an_index_outside_the_grid_is_refused(index):
    values = torch.ones(1, 1, 2, 2)
    indices = torch.tensor([0, 2, 8, index]).reshape(1, 1, 2, 2)
    with pytest.raises(ValueError, match="outside the unpooled grid"):
        nan_max_unpool(values, indices, 2)


def test_a_tie_outside_the_grid_is_refused():
    pooled = nan_max_pool(torch.ones(1, 1, 4, 5), (2, 3), (2, 2), mode="conservative")
    with pytest.raises(ValueError, match="outside the unpooled grid"):
        nan_max_unpool(pooled.values[..., :1], pooled.indices[..., :1], (2, 3), (2, 2), ties=pooled.ties)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"output_size": (6, 4)}, "output_size must be within one stride"),
        ({"output_size": (4,)}, "output_size"),
        ({"indices": torch.zeros(1, 1, 2, 3, dtype=torch.int64)}, "indices must be int64"),
        ({"indices": torch.zeros(1, 1, 2, 2)}, "indices must be int64"),
        ({"ties": torch.zeros(1, 1, 4, 4)}, "ties must be bool"),
        ({"ties": torch.zeros(2, 1, 4, 4, dtype=torch.bool)}, "ties must be bool"),
        ({"values": torch.zeros(2, 2)}, r"values must be \(N, C, H, W\)"),
        ({"kernel_size": (2, 2, 2)}, "kernel_size"),
        ({"stride": 0}, "stride"),
        ({"padding": -1}, "padding"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    options = {
        "values": torch.ones(1, 1, 2, 2),
        "indices": torch.zeros(1, 1, 2, 2, dtype=torch.int64),
        "kernel_size": 2,
    }
    with pytest.raises(ValueError, match=words):
        nan_max_unpool(**(options | change))
