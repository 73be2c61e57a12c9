"""Max pooling against the naive loop, and against torch where there is nothing to mark."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nansparse.functional import MaxPoolResult, nan_max_pool
from tests.functional import drawing, reference

MODES = ("conservative", "aggressive")
NAMESAKES = {2: F.max_pool2d, 3: F.max_pool3d}


def assert_pooled(result: MaxPoolResult, expected: reference.Pooled, mode: str) -> None:
    """Pooling only picks: everything is exact."""
    np.testing.assert_array_equal(drawing.as_array(result.values), expected.values)
    np.testing.assert_array_equal(result.indices.numpy(), expected.indices)
    assert result.indices.dtype == torch.int64
    if mode == "aggressive":
        assert result.ties is None
    else:
        np.testing.assert_array_equal(result.ties.numpy(), expected.ties)


def pool_both(x: Tensor, geometry: drawing.Geometry, ceil_mode: bool, **options: object) -> None:
    _, *sizes = geometry
    result = nan_max_pool(x, *sizes, ceil_mode, **options)
    expected = reference.max_pool(drawing.as_array(x), *sizes, ceil_mode, **options)
    assert result.values.dtype == x.dtype
    assert_pooled(result, expected, options["mode"])


@given(
    geometry=drawing.geometries(pooling=True),
    ceil_mode=st.booleans(),
    mode=st.sampled_from(MODES),
    max_ties=st.integers(1, 3),
    batch=st.sampled_from((0, 1, 2)),
    pattern=st.sampled_from(drawing.NAN_PATTERNS),
    dtype=st.sampled_from((torch.float64, torch.float32, torch.float16, torch.bfloat16)),
    seed=drawing.seeds,
)
@settings(max_examples=250)
def test_few_levels_tie_everywhere(geometry, ceil_mode, mode, max_ties, batch, pattern, dtype, seed):
    x = drawing.with_nan(drawing.levels(seed, (batch, 2, *geometry.grid), dtype), pattern, seed)
    pool_both(x, geometry, ceil_mode, mode=mode, max_ties=max_ties)


@given(
    geometry=drawing.geometries(pooling=True),
    mode=st.sampled_from(MODES),
    epsilon=st.sampled_from((0.0, 1e-7, 1e-3, 1e-2, 0.3)),
    pattern=st.sampled_from(drawing.NAN_PATTERNS),
    dtype=drawing.dtypes,
    seed=drawing.seeds,
)
@settings(max_examples=60)
def test_real_numbers_tie_within_epsilon(geometry, mode, epsilon, pattern, dtype, seed):
    x = drawing.with_nan(drawing.values(seed, (2, 1, *geometry.grid), dtype), pattern, seed)
    pool_both(x, geometry, False, mode=mode, epsilon=epsilon)


@given(
    geometry=drawing.geometries(pooling=True),
    ceil_mode=st.booleans(),
    mode=st.sampled_from(MODES),
    batch=st.sampled_from((0, 1, 2)),
    dtype=drawing.dtypes,
    seed=drawing.seeds,
)
@settings(max_examples=80)
def test_without_nan_and_ties_it_is_torch(geometry, ceil_mode, mode, batch, dtype, seed):
    grid, *sizes = geometry
    x = drawing.distinct(seed, (batch, 3, *grid), dtype)
    values, indices = NAMESAKES[len(grid)](x, *sizes, ceil_mode, return_indices=True)
    result = nan_max_pool(x, *sizes, ceil_mode, mode=mode)
    assert torch.equal(result.values, values)
    assert torch.equal(result.indices, indices)
    assert result.ties is None or not result.ties.any()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(2, 2, 0), (2, 3, 0), (3, 2, 1), (4, 3, 2), (5, 2, 0)]
)
@pytest.mark.parametrize("rank", [2, 3])
def test_ceil_mode_at_odd_sizes_and_kernels_larger_than_the_image(size, kernel, stride, padding, rank):
    x = drawing.distinct(0, (1, 2, *[size] * rank))
    try:
        values, indices = NAMESAKES[rank](x, kernel, stride, padding, ceil_mode=True, return_indices=True)
    except RuntimeError:
        with pytest.raises(ValueError, match="does not fit"):
            nan_max_pool(x, kernel, stride, padding, ceil_mode=True, mode="aggressive")
        return
    result = nan_max_pool(x, kernel, stride, padding, ceil_mode=True, mode="aggressive")
    assert torch.equal(result.values, values)
    assert torch.equal(result.indices, indices)
    sizes = ((kernel,) * rank, (stride,) * rank, (padding,) * rank, (1,) * rank)
    holed = drawing.with_nan(drawing.levels(1, tuple(x.shape)), "few", 1)
    pool_both(holed, drawing.Geometry((size,) * rank, *sizes), True, mode="conservative")


def test_the_stride_is_the_kernel_unless_given():
    x = drawing.levels(0, (1, 1, 6, 9))
    for stride in (None, (), [], (2, 3)):
        result = nan_max_pool(x, (2, 3), stride, mode="conservative")
        assert_pooled(
            result,
            reference.max_pool(x.numpy(), (2, 3), (2, 3), (0, 0), (1, 1), mode="conservative"),
            "conservative",
        )


@pytest.mark.parametrize("mode", MODES)
def test_a_window_of_nan_alone_points_at_its_first_cell_inside(mode):
    x = torch.full((1, 1, 4, 4), torch.nan)
    result = nan_max_pool(x, 3, 2, 1, mode=mode)
    assert result.values.isnan().all()
    assert result.indices.tolist() == [[[[0, 1], [4, 5]]]]  # the first window's corner lies in the padding
    assert result.ties is None or not result.ties.any()


@pytest.mark.parametrize("mode", MODES)
def test_infinities_tie_with_their_like_only(mode):
    inf = math.inf
    x = torch.tensor([[-inf, -inf, -inf, 1.0, inf, inf, inf, 3e38, math.nan, -inf]]).reshape(1, 1, 1, 10)
    pool_both(x, drawing.Geometry((1, 10), (1, 2), (1, 2), (0, 0), (1, 1)), False, mode=mode)
    result = nan_max_pool(x, (1, 2), mode=mode)
    pooled = [math.nan, 1.0, math.nan, inf, -inf] if mode == "aggressive" else [-inf, 1.0, inf, inf, -inf]
    assert torch.equal(result.values.flatten().nan_to_num(7), torch.tensor(pooled).nan_to_num(7))
    assert result.indices.flatten().tolist() == [0, 3, 4, 6, 9]


def test_padding_neither_wins_nor_ties():
    x = torch.full((1, 1, 2, 2), -1.0)
    x[..., 0, 0] = 0.0  # a padding zero would tie with it
    result = nan_max_pool(x, 2, 2, 1, mode="aggressive")
    assert result.values.tolist() == [[[[0.0, -1.0], [-1.0, -1.0]]]]
