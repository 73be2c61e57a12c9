"""Confidence intervals of shares, against statsmodels and against brute force."""

import pytest
import torch
from statsmodels.stats.proportion import proportion_confint

from nansparse.errors import InputError
from nansparse.zoo.shares import paired_interval, wilson_interval


def pairs(both: int, first: int, second: int, neither: int) -> tuple[torch.Tensor, torch.Tensor]:
    a = [True] * (both + first) + [False] * (second + neither)
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return torch.tensor(a), torch.tensor(b)


@pytest.mark.parametrize(("hits", "count"), [(81, 263), (15, 148), (0, 20), (20, 20), (1, 1)])
def test_one_share_is_as_statsmodels_has_it(hits: int, count: int) -> None:
    expected = proportion_confint(hits, count, method="wilson")
    assert wilson_interval(hits, count) == pytest.approx(expected, abs=1e-6)


def test_the_same_answers_differ_by_nothing_and_the_order_turns_the_sign() -> None:
    a, b = pairs(700, 40, 10, 47)
    low, high = paired_interval(a, b)
    assert low < 30 / 797 < high
    assert paired_interval(b, a) == pytest.approx((-high, -low))
    same = paired_interval(a, a)
    assert same[0] <= 0 <= same[1]
    assert same[1] - same[0] < 0.02


def test_a_95_percent_interval_covers_about_95_percent() -> None:
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(400):
        cell = torch.multinomial(
            torch.tensor([0.7, 0.15, 0.05, 0.1]), 200, replacement=True, generator=generator
        )
        low, high = paired_interval((cell == 0) | (cell == 1), (cell == 0) | (cell == 2))
        inside += low <= 0.10 <= high
    assert 0.92 <= inside / 400 <= 0.985


def test_impossible_counts_are_refused() -> None:
    for hits, count in ((1, 0), (3, 2), (-1, 4)):
        with pytest.raises(InputError, match="expected 0 <= hits <= count"):
            wilson_interval(hits, count)
