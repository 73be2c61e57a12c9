"""The equivalence tests give statsmodels' numbers, and no verdict where there is nothing to judge."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from nansparse.errors import InputError
from nansparse.evaluation.equivalence import (
    EQUIVALENT,
    FEWEST_PAIRS,
    NOT_ENOUGH,
    NOT_SHOWN,
    holm,
    judge_equivalence,
    paired_tost,
)

numbers = st.lists(st.floats(-0.1, 0.1).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=2, max_size=30)


@settings(max_examples=40)
@given(numbers.filter(lambda d: np.ptp(d) > 1e-5), st.floats(0.001, 0.2))
def test_p_values_and_interval_are_those_of_statsmodels(differences, margin):
    values = np.asarray(differences)
    expected, _, _ = ttost_paired(values, np.zeros_like(values), -margin, margin)
    p_tost, p_t_test = paired_tost(differences, margin)
    reference = DescrStatsW(values)
    assert p_tost == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert p_t_test == pytest.approx(reference.ttest_mean(0)[1], rel=1e-6, abs=1e-12)
    found = judge_equivalence({"all": differences}, margin)["all"]
    assert (found.low, found.high) == pytest.approx(reference.tconfint_mean(alpha=0.1), rel=1e-6, abs=1e-12)
    assert found.effect_size == pytest.approx(values.mean() / values.std(ddof=1))


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels(p_values):
    with patch("gc.collect"):  # statsmodels calls it every time, and in a large process it takes long
        expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected))


@settings(max_examples=40)
@given(numbers.filter(lambda d: len(d) >= FEWEST_PAIRS and np.ptp(d) > 1e-5), st.floats(0.001, 0.2))
def test_equivalence_is_an_interval_inside_the_margin(differences, margin):
    found = judge_equivalence({"all": differences}, margin)["all"]
    inside = -margin < found.low and found.high < margin
    assert found.verdict == (EQUIVALENT if inside else NOT_SHOWN)


def test_holm_over_the_labels_decides():
    # Alone at p = 0.03 a label is equivalent; as the better of two it needs p < 0.025.
    differences = [0.0, 0.004, 0.008, 0.012, 0.001, 0.009]
    margin = 0.0098
    alone = judge_equivalence({"a": differences}, margin)["a"]
    assert 0.025 < alone.p_tost < 0.05
    assert alone.verdict == EQUIVALENT
    together = judge_equivalence({"a": differences, "b": [*differences[:-1], 0.05]}, margin)
    assert together["a"].p_tost == alone.p_tost
    assert together["a"].p_tost_holm == pytest.approx(2 * alone.p_tost)
    assert together["a"].verdict == NOT_SHOWN


@pytest.mark.parametrize("n", range(FEWEST_PAIRS))
def test_too_few_volumes_get_no_verdict(n):
    few = [0.001 * i for i in range(n)]
    found = judge_equivalence({"few": few, "many": [0.001, 0.002, 0.0, 0.001, 0.003]})
    assert found["few"].verdict == NOT_ENOUGH
    assert found["few"].n == n
    assert (found["few"].mean is None) == (n == 0)
    assert (found["few"].low is None) == (n < 2)
    # It does not count in the correction of the others either.
    assert found["many"].p_tost_holm == found["many"].p_tost
    assert found["many"].verdict == EQUIVALENT


def test_differences_that_do_not_vary_decide_by_themselves():
    assert judge_equivalence({"same": [0.0] * 5})["same"].verdict == EQUIVALENT
    worse = judge_equivalence({"worse": [-0.02] * 5})["worse"]
    assert (worse.verdict, worse.p_tost, worse.p_t_test, worse.effect_size) == (NOT_SHOWN, 1.0, 0.0, None)


@pytest.mark.parametrize("differences", [[0.0], []])
def test_one_pair_is_no_test(differences):
    with pytest.raises(InputError, match="at least 2"):
        paired_tost(differences)


@pytest.mark.parametrize(
    ("differences", "margin"), [([0.0, np.nan], 0.01), ([0.0, 1.0], 0.0), ([0.0, 1.0], np.nan)]
)
def test_what_cannot_be_tested_is_refused(differences, margin):
    with pytest.raises(InputError):
        judge_equivalence({"x": differences}, margin)
