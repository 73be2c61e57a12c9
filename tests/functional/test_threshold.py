"""A window exactly at the threshold is skipped; one NaN cell fewer is filled."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from nansparse.functional import nan_conv, nan_conv_transpose, nan_linear, skipped_windows
from tests.functional import drawing

TWO_DIGITS = [number / 100 for number in range(1, 101)]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def marked(holes: int, cells: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A vector whose NaN cells are spread out."""
    order = torch.from_numpy(drawing.distinct(holes, (cells,)).numpy().argsort())
    return torch.ones(cells, dtype=dtype).index_fill(0, order[:holes], torch.nan)


@pytest.mark.parametrize("threshold", drawing.THRESHOLDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_literals_are_met_exactly(threshold, dtype):
    share = Fraction(repr(threshold))
    cells = 400  # 4 channels x 10 x 10
    edge = int(share * cells)
    assert Fraction(edge, cells) == share
    for holes, is_skipped in ((edge, True), (edge - 1, False)):
        x = marked(holes, cells, dtype).reshape(1, 4, 10, 10)
        weight = torch.full((2, 4, 10, 10), 1 / 512, dtype=dtype)
        out = nan_conv(x, weight, threshold=threshold)
        assert bool(out.isnan().all()) == bool(out.isnan().any()) == is_skipped
        assert bool(skipped_windows(x, 10, threshold=threshold).all()) == is_skipped
        out = nan_linear(x.flatten(), weight.flatten(1), threshold=threshold)
        assert bool(out.isnan().all()) == bool(out.isnan().any()) == is_skipped


@pytest.mark.parametrize("size", [1, 2, 4, 5, 10, 20, 25, 50])
def test_every_two_digit_literal_at_every_size_it_fits(size):
    for threshold in TWO_DIGITS:
        edge = Fraction(repr(threshold)) * size * 18
        holes = -(-edge.numerator // edge.denominator)  # the first whole number at or over the threshold
        at, under = (marked(count, 18 * size)[None, :, None, None] for count in (holes, holes - 1))
        assert skipped_windows(at, 1, threshold=threshold).all()
        assert not skipped_windows(under, 1, threshold=threshold).any()


def test_padding_counts_in_the_denominator():
    x = torch.full((1, 1, 2, 2), torch.nan)  # every window of 9 holds 4 NaN cells and 5 of padding
    assert skipped_windows(x, 3, padding=1, threshold=4 / 9).all()
    assert not skipped_windows(x, 3, padding=1, threshold=0.45).any()
    assert torch.equal(nan_conv(x, torch.ones(1, 1, 3, 3), padding=1), torch.zeros(1, 1, 2, 2))


def test_a_threshold_of_one_skips_windows_of_nan_alone():
    x = marked(17, 18)[None, :, None, None]
    assert not skipped_windows(x, 1, threshold=1.0).any()
    assert skipped_windows(torch.full_like(x, torch.nan), 1, threshold=1.0).all()
    assert nan_conv(x, torch.ones(1, 18, 1, 1), threshold=1.0).item() == 18  # the one real cell, 18 times
    assert nan_conv_transpose(x, torch.ones(18, 1, 1, 1), threshold=1.0).item() == 18


def test_groups_are_judged_apart():
    x = torch.ones(1, 4, 3, 3)
    x[:, :2] = torch.nan
    skipped = skipped_windows(x, 3, padding=1, groups=2)
    assert skipped.shape == (1, 2, 3, 3)
    assert torch.equal(skipped[0, 0], nan_conv(x, torch.ones(2, 2, 3, 3), padding=1, groups=2)[0, 0].isnan())
    assert skipped[0, 0, 1, 1]
    assert not skipped[0, 1].any()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_batch_has_no_windows(groups, dtype):
    skipped = skipped_windows(torch.ones(0, 4, 6, 5, dtype=dtype), 3, 2, 1, groups=groups)
    assert skipped.shape == (0, groups, 3, 3)
    assert skipped.dtype == torch.bool


@pytest.mark.parametrize("threshold", [0, 0.0, -0.5, 1.01, float("nan"), float("inf"), "0.5", None, True])
def test_other_thresholds_are_refused(threshold):
    x, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    for call in (nan_conv, nan_conv_transpose):
        with pytest.raises(ValueError, match="threshold must be"):
            call(x, weight, threshold=threshold)
    with pytest.raises(ValueError, match="threshold must be"):
        skipped_windows(x, 3, threshold=threshold)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_share_is_compared_in_double_precision(dtype):
    x = marked(9, 18, dtype)[None, :, None, None]
    assert skipped_windows(x, 1, threshold=math.nextafter(0.5, 0)).all()
    assert not skipped_windows(x, 1, threshold=math.nextafter(0.5, 1)).any()
