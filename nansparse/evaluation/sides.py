"""Two runs side by side, and which of their differences exceed the noise.

Times are compared on a logarithmic scale, where noise of a few per cent is about normal. Runs that were cut
into the same turns are compared turn by turn (paired t-test), others sample by sample (Welch's t-test); the p
values of all rows are corrected together (Holm). A difference exceeds the noise when its corrected p is below
0.05 and it is larger than the drift: the two runs were not interleaved, so the machine may have been slower
in one of them, and the dense runs, in which nansparse has no part, show by how much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nansparse.errors import InputError
from nansparse.evaluation.equivalence import LEVEL, holm
from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.summary import Table, number, seconds, times, varying

# With fewer samples a side no test is made.
FEWEST_SAMPLES = 3
# Below this a difference of two measures is rounding.
ROUNDING = 1e-9

_NOTE = (
    "B/A: time of B over time of A. A difference exceeds the noise when its p value (t-test on the "
    "logarithms, Holm over all rows) is below 0.05 and it is larger than the drift of the dense runs, "
    "{drift:.1%} here (95th percentile)."
)


@dataclass(frozen=True)
class Pair:
    """The same cell run the same way in both files.

    Attributes:
        a: In the first.
        b: In the second.
        ratio: Median time of b over that of a.
        p: Of the test; None with too few samples.
    """

    a: Row
    b: Row
    ratio: float
    p: float | None


def side_by_side(first: tuple[Path, Results], second: tuple[Path, Results]) -> list[Table]:
    """Compare two runs.

    Args:
        first: A results file and what it holds.
        second: Another of the same kind.

    Returns:
        A table of times and a table of measures that differ; tables without lines are left out.

    Raises:
        InputError: If the two are of different kinds or have no cell in common.
    """
    (path_a, a), (path_b, b) = first, second
    if a.kind != b.kind:
        raise InputError(f"{path_a.name} holds {a.kind} and {path_b.name} {b.kind}: they cannot be compared")
    known = {_key(row): row for row in a.rows if row.done}
    both = [(known[_key(row)], row) for row in b.rows if row.done and _key(row) in known]
    if not both:
        raise InputError(f"{path_a.name} and {path_b.name} have no cell in common")
    pairs = [
        Pair(x, y, y.timing["median"] / x.timing["median"], _p_value(x.timing, y.timing))
        for x, y in both
        if x.timing and y.timing and x.timing["median"] > 0
    ]
    axes = varying(row for _, row in both)
    found = [_times(pairs, axes), _measures(both, axes), _places(a, b)]
    return [table for table in found if table.lines]


def _times(pairs: list[Pair], axes: list[str]) -> Table:
    dense = [abs(math.log(pair.ratio)) for pair in pairs if pair.a.way.startswith("dense,")]
    drift = float(np.percentile(dense, 95)) if dense else 0.0
    tested = [pair for pair in pairs if pair.p is not None]
    corrected = {
        id(pair): p for pair, p in zip(tested, holm([pair.p or 0.0 for pair in tested]), strict=True)
    }
    lines = []
    for pair in pairs:
        p = corrected.get(id(pair))
        line = {axis: str(pair.a.cell[axis]) for axis in axes}
        line |= {"run": pair.a.way, "A": seconds(pair.a.timing), "B": seconds(pair.b.timing)}
        line |= {"B/A": times(pair.ratio), "p (Holm)": number(p, 3)}
        line["verdict"] = _verdict(pair, p, drift)
        lines.append(line)
    return Table("Times side by side", _NOTE.format(drift=math.expm1(drift)), lines)


def _verdict(pair: Pair, p: float | None, drift: float) -> str:
    if p is None:
        return "too few samples"
    if p >= LEVEL or abs(math.log(pair.ratio)) <= drift:
        return "within noise"
    return "B faster" if pair.ratio < 1 else "B slower"


def _measures(both: list[tuple[Row, Row]], axes: list[str]) -> Table:
    lines = []
    for a, b in both:
        of_a = {("", name): value for name, value in a.values.items()} | _by_label(a)
        of_b = {("", name): value for name, value in b.values.items()} | _by_label(b)
        for (label, name), value in of_a.items():
            other = of_b.get((label, name))
            if name in _TIMED or value is None or other is None or abs(value - other) <= ROUNDING:
                continue
            line = {axis: str(a.cell[axis]) for axis in axes} | {
                "run": a.way,
                "label": label,
                "measure": name,
            }
            lines.append(line | {"A": f"{value:.6g}", "B": f"{other:.6g}", "B - A": f"{other - value:+.3g}"})
    note = (
        "The same input gives the same result: a difference here comes from software or options, not noise."
    )
    return Table("Measures that differ", note, lines)


# What follows from times, and is judged there.
_TIMED = ("speed_up", "share_of_limit", "peak_memory_mib")


def _by_label(row: Row) -> dict[tuple[str, str], float | None]:
    return {(label, name): value for label, values in row.labels.items() for name, value in values.items()}


def _places(a: Results, b: Results) -> Table:
    names = list(dict.fromkeys([*a.environment, *b.environment]))
    lines = [
        {"what": name, "A": str(a.environment.get(name, "-")), "B": str(b.environment.get(name, "-"))}
        for name in names
        if a.environment.get(name) != b.environment.get(name)
    ]
    return Table("Different conditions", "The two runs were not made in the same place.", lines)


def _key(row: Row) -> str:
    return repr((sorted(row.cell.items()), row.way))


def _p_value(a: dict[str, Any], b: dict[str, Any]) -> float | None:
    """Test two timings for a difference.

    Args:
        a: What `Timing.to_dict` gives, with "parts" where a repeat is a sum of turns.
        b: The other.

    Returns:
        The two-sided p value, or None with fewer than `FEWEST_SAMPLES` samples.

    Raises:
        InputError: If scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise InputError("comparing two runs needs scipy: pip install 'nansparse[evaluation]'") from error
    paired = len(a.get("parts", [])) == len(b.get("parts", [])) > 1
    x, y = (timing["parts"] if paired else timing["seconds"] for timing in (a, b))
    if min(len(x), len(y)) < FEWEST_SAMPLES or min(*x, *y) <= 0:
        return None
    logs = [[math.log(value) for value in values] for values in (x, y)]
    if paired:
        differences = [v - u for u, v in zip(*logs, strict=True)]
        if max(differences) - min(differences) == 0:
            return float(differences[0] == 0)
        return float(stats.ttest_1samp(differences, 0.0).pvalue)
    if all(max(values) == min(values) for values in logs):
        return float(logs[0][0] == logs[1][0])
    return float(stats.ttest_ind(*logs, equal_var=False).pvalue)
