"""Are two ways of running a network equivalent? Paired TOST, with the paired t-test beside it.

A t-test that finds no difference proves nothing: with few volumes it finds none, whatever happened. TOST (two
one-sided tests, Schuirmann 1987) turns the question round. It assumes a difference as large as the margin
and asks whether the data refute it on both sides: equivalence is shown at 5 % when both one-sided p values
are below 0.05, which is when the 90 % confidence interval of the mean difference lies inside the margin.

The default margin is 0.01 of Dice. Under rounding noise alone FastSurfer's segmentations agree to 0.99 Dice
on average (Gonzalez Pepe et al., arXiv 2308.01939), so a smaller change cannot be told from another
machine's rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nansparse.errors import InputError

Differences = np.ndarray[Any, np.dtype[np.float64]]
MARGIN = 0.01
LEVEL = 0.05
# With fewer pairs the true standard deviation may be more than three times the measured one (95 % interval),
# and no verdict is given.
FEWEST_PAIRS = 5

EQUIVALENT, NOT_SHOWN, NOT_ENOUGH = "equivalent", "not shown", "not enough data"


@dataclass(frozen=True)
class Equivalence:
    """What paired measurements say about the difference of two ways.

    Attributes:
        n: Pairs.
        margin: Largest difference that counts as none.
        mean: Mean difference; None without pairs.
        low: Lower end of its 90 % confidence interval; None with fewer than two pairs.
        high: Upper end.
        effect_size: Cohen's d of the differences (mean / standard deviation); None where they do not vary.
        p_tost: The larger p value of the two one-sided tests: equivalence.
        p_tost_holm: The same, corrected over the labels tested together (Holm).
        p_t_test: The paired t-test, two-sided: difference, not equivalence.
        verdict: `EQUIVALENT`, `NOT_SHOWN` or `NOT_ENOUGH`.
    """

    n: int
    margin: float
    mean: float | None
    low: float | None
    high: float | None
    effect_size: float | None
    p_tost: float | None
    p_tost_holm: float | None
    p_t_test: float | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON-able data.

        Returns:
            Attribute name to value.
        """
        return asdict(self)


def paired_tost(differences: Sequence[float] | Differences, margin: float = MARGIN) -> tuple[float, float]:
    """Test paired differences for equivalence to zero, and for difference from it.

    Args:
        differences: One a pair, at least two, finite.
        margin: Differences inside (-margin, margin) count as none; above 0.

    Returns:
        The p value of TOST (the larger of its two), and that of the two-sided paired t-test. Differences that
        do not vary decide by themselves: p is 0 or 1.

    Raises:
        InputError: If the margin is not above 0, there are fewer than two pairs, or one is not finite.
    """
    values = _checked(differences, margin)
    if len(values) < 2:
        raise InputError(f"a paired test needs at least 2 pairs, got {len(values)}")
    student = _student(len(values) - 1)
    mean, error = float(values.mean()), _standard_error(values)
    if error == 0.0:
        return float(abs(mean) >= margin), float(mean == 0.0)
    not_above = float(student.cdf((mean - margin) / error))
    not_below = float(student.sf((mean + margin) / error))
    return max(not_above, not_below), float(2 * student.sf(abs(mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for testing several hypotheses together (Holm 1979).

    Args:
        p_values: One a hypothesis.

    Returns:
        The corrected ones in the same order; the chance of any wrong rejection stays below the level.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = least
    return corrected


def judge_equivalence(
    differences: Mapping[str, Sequence[float]], margin: float = MARGIN
) -> dict[str, Equivalence]:
    """Judge several sets of paired differences together, one a label.

    Args:
        differences: Label to its differences, one a volume.
        margin: Differences inside (-margin, margin) count as none.

    Returns:
        Label to what was found. The verdict is by the corrected p value; labels with fewer than
        `FEWEST_PAIRS` pairs get none, and do not count in the correction.
    """
    check_margin(margin)
    sets = {label: _checked(values, margin) for label, values in differences.items()}
    tests = {label: paired_tost(values, margin) for label, values in sets.items() if len(values) > 1}
    judged = [label for label in tests if len(sets[label]) >= FEWEST_PAIRS]
    corrected = dict(zip(judged, holm([tests[label][0] for label in judged]), strict=True))
    found = {}
    for label, values in sets.items():
        low, high = _interval(values)
        p_tost, p_t_test = tests.get(label, (None, None))
        p_holm = corrected.get(label)
        verdict = NOT_ENOUGH if p_holm is None else EQUIVALENT if p_holm < LEVEL else NOT_SHOWN
        mean = float(values.mean()) if len(values) else None
        numbers = (mean, low, high, _effect_size(values), p_tost, p_holm, p_t_test)
        found[label] = Equivalence(len(values), margin, *numbers, verdict)
    return found


def check_margin(margin: float) -> None:
    """Check a margin of equivalence.

    Args:
        margin: Largest difference that counts as none.

    Raises:
        InputError: If it is no number above 0.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise InputError(f"the margin of equivalence must be a number > 0, got {margin!r}")


def _checked(differences: Sequence[float] | Differences, margin: float) -> Differences:
    """Bring differences to numpy.

    Args:
        differences: Numbers.
        margin: Of equivalence.

    Returns:
        The differences.

    Raises:
        InputError: If the margin is not above 0 or a difference is not finite.
    """
    check_margin(margin)
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise InputError(
            "paired differences must be finite numbers, one a pair: give missing ones a value by a rule"
        )
    return values


def _student(degrees: int) -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise InputError("equivalence tests need scipy: pip install 'nansparse[evaluation]'") from error
    return stats.t(degrees)


def _standard_error(values: Differences) -> float:
    # Equal numbers have no spread; their mean may still be off by a rounding.
    return 0.0 if np.ptp(values) == 0.0 else float(values.std(ddof=1) / math.sqrt(len(values)))


def _interval(values: Differences) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    reach = float(_student(len(values) - 1).ppf(1 - LEVEL)) * _standard_error(values)
    return float(values.mean()) - reach, float(values.mean()) + reach


def _effect_size(values: Differences) -> float | None:
    if len(values) < 2 or np.ptp(values) == 0.0:
        return None
    return float(values.mean() / values.std(ddof=1))
