"""Ties at the tolerance and one ulp past it; random marking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nansparse.functional import nan_max_pool
from tests.functional import drawing, reference

KINDS = {torch.float64: np.float64, torch.float32: np.float32}
EPSILONS = (1e-7, 1e-5, 1e-3, 1e-2)


def last_tie(top: np.floating, epsilon: float) -> np.floating:
    """The smallest number that still ties with `top`, found by walking ulps."""
    kind = type(top)
    low = kind(-np.inf)
    value = top - (kind(1e-8) + abs(kind(epsilon) * top))
    while not reference.is_tie(value, top, epsilon):
        value = np.nextafter(value, -low)
    while reference.is_tie(np.nextafter(value, low), top, epsilon):
        value = np.nextafter(value, low)
    return value


@given(
    top=st.floats(2.0**-20, 2.0**20, width=32),
    sign=st.sampled_from((1, -1)),
    epsilon=st.sampled_from(EPSILONS),
    dtype=drawing.dtypes,
)
@settings(max_examples=100)
def test_a_cell_ties_up_to_the_tolerance_and_not_one_ulp_further(top, sign, epsilon, dtype):
    top = KINDS[dtype](sign * top)
    edge = last_tie(top, epsilon)
    beyond = np.nextafter(edge, KINDS[dtype](-np.inf))
    at, past = (
        nan_max_pool(
            torch.tensor([[[[low, top]]]], dtype=dtype), (1, 2), mode="conservative", epsilon=epsilon
        )
        for low in (edge, beyond)
    )
    assert at.ties.flatten().tolist() == [True, True]
    assert not past.ties.any()
    assert at.values.item() == past.values.item() == top
    assert at.indices.item() == (0 if edge == top else 1)


def test_the_tolerance_is_that_of_isclose():
    tops = drawing.values(0, (4000,), torch.float32) * 100
    lows = tops * (1 - 1e-3 * torch.linspace(0.999, 1.001, 4000))
    x = torch.stack([tops, lows], -1).reshape(1, 1, 4000, 2)
    high = x.amax(-1)
    close = torch.isclose(x.amin(-1), high, rtol=1e-3, atol=1e-8)
    pooled = nan_max_pool(x, (1, 2), mode="aggressive", epsilon=1e-3)
    assert torch.equal(pooled.values.isnan().squeeze(-1), close.squeeze(-1))
    assert 0 < close.sum() < close.numel()


def test_near_zero_the_absolute_tolerance_decides():
    x = torch.tensor([[[[0.0, -1e-8], [0.0, -1.1e-8]]]], dtype=torch.float64)
    assert nan_max_pool(x, (1, 2), mode="aggressive").values.isnan().flatten().tolist() == [True, False]


@pytest.mark.parametrize("max_ties", [1, 2, 3, 4])
def test_unstable_means_more_than_max_ties(max_ties):
    x = torch.tensor([[[[2.0, 2.0], [2.0, 1.0]]]])
    assert nan_max_pool(x, 2, mode="aggressive", max_ties=max_ties).values.isnan().item() == (max_ties < 3)
    assert nan_max_pool(x, 2, mode="conservative", max_ties=max_ties).ties.sum() == (3 if max_ties < 3 else 0)


def test_ties_of_overlapping_windows_are_joined():
    x = torch.tensor([[[[1.0, 1.0, 0.5, 2.0, 2.0]]]])
    ties = nan_max_pool(x, (1, 3), 1, mode="conservative").ties
    assert ties.flatten().tolist() == [True, True, False, True, True]


def test_the_first_of_a_near_tie_need_not_be_the_index():
    x = torch.tensor([[[[0.999, 1.0, 1.0]]]])
    result = nan_max_pool(x, (1, 3), mode="conservative", epsilon=1e-2)
    assert result.values.item() == 1.0
    assert result.indices.item() == 1
    assert result.ties.all()


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_a_share_of_the_unstable_windows_becomes_nan(probability):
    x = torch.ones(2, 5, 40, 40)
    x[:, 0] = drawing.distinct(0, (2, 40, 40), torch.float32)  # stable: never drawn

    def pooled(seed: int):
        source = torch.Generator().manual_seed(seed)
        return nan_max_pool(x, 2, mode="aggressive", nan_probability=probability, generator=source)

    first, again, other = pooled(1), pooled(1), pooled(2)
    marked = first.values.isnan()
    assert not marked[:, 0].any()
    assert abs(marked[:, 1:].double().mean().item() - probability) < 0.04  # over 4 standard deviations
    torch.testing.assert_close(first.values, again.values, rtol=0, atol=0, equal_nan=True)
    assert not torch.equal(marked, other.values.isnan())
    spared = nan_max_pool(x, 2, mode="conservative")
    assert torch.equal(first.values[~marked], spared.values[~marked])
    assert torch.equal(first.indices, spared.indices)  # of ones alone: the first cell, marked or not


def test_all_nan_windows_are_nan_whatever_is_drawn(generator):
    x = torch.full((1, 1, 8, 8), torch.nan)
    pooled = nan_max_pool(x, 2, mode="aggressive", nan_probability=0.01, generator=generator)
    assert pooled.values.isnan().all()


def test_random_marking_needs_its_own_generator():
    with pytest.raises(ValueError, match=r"explicit generator=torch\.Generator"):
        nan_max_pool(torch.ones(1, 1, 2, 2), 2, mode="aggressive", nan_probability=0.5)
