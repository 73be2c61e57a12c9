"""Tables of `nansparse bench layers`."""

from __future__ import annotations

from collections.abc import Sequence

from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.summary import Line, Table, by_cell, seconds, share, times, varying

AUTO, RATIO = "auto", "nan_ratio"
# Fewer shares of NaN say nothing about where an engine begins to win.
FEWEST_RATIOS = 3
# The planner's promise: never slower than dense, to the noise of a measurement.
_GOAL = 0.97


def layer_tables(results: Results) -> list[Table]:
    """Summarise single layers.

    Args:
        results: Of `nansparse bench layers`.

    Returns:
        A line a cell; from which share of NaN on each engine wins; the time trials of the paper.
    """
    rows = [row for row in results.rows if row.done]
    ways = list(dict.fromkeys(row.way for row in results.rows if "limit" in row.values))
    return [_cells(rows, ways), _crossovers(rows, ways), _published(results)]


def _cells(rows: Sequence[Row], ways: Sequence[str]) -> Table:
    axes = varying(rows)
    lines = []
    for cell in by_cell(rows):
        found = {row.way: row for row in cell}
        sparse = [found[way] for way in ways if way in found]
        dense = min((row for row in cell if row not in sparse), key=lambda row: row.seconds or 0.0)
        line = {axis: str(dense.cell.get(axis, "-")) for axis in axes}
        line["best dense"] = seconds(dense.timing)
        line["windows skipped"] = share(sparse[0].values["windows_skipped"]) if sparse else "-"
        line["limit"] = times(sparse[0].values["limit"]) if sparse else "-"
        line |= {way: times(found[way].values["speed_up"]) if way in found else "-" for way in ways}
        if AUTO in ways:
            line["auto of limit"] = share(found[AUTO].values.get("share_of_limit")) if AUTO in found else "-"
        lines.append(line)
    same = {name: value for name, value in rows[0].cell.items() if name not in axes} if rows else {}
    note = "Speed-up over the faster dense layout of the same cell. Everywhere: " + (
        ", ".join(f"{name} {value}" for name, value in same.items()) or "nothing"
    )
    return Table("Engines against dense", note + ".", lines)


def _crossovers(rows: Sequence[Row], ways: Sequence[str]) -> Table:
    """Say from which share of NaN on each engine wins, and what "auto" loses at worst."""
    axes = [axis for axis in varying(rows) if axis != RATIO] if rows else []
    groups: dict[tuple[str, ...], dict[str, dict[float, float]]] = {}
    for row in rows:
        if row.way in ways and RATIO in row.cell:
            of_cell = groups.setdefault(tuple(str(row.cell.get(axis, "-")) for axis in axes), {})
            of_cell.setdefault(row.way, {})[float(row.cell[RATIO])] = row.values["speed_up"] or 0.0
    lines = []
    for key, gains in groups.items():
        if max(map(len, gains.values())) < FEWEST_RATIOS:
            continue
        line: Line = dict(zip(axes, key, strict=True))
        line |= {way: _crossover(gains.get(way, {})) for way in ways}
        if AUTO in gains:
            least, at = min((gain, ratio) for ratio, gain in gains[AUTO].items())
            line["auto, least"] = f"{times(least)} at {share(at)}"
        lines.append(line)
    note = "The least share of NaN from which on an engine is no slower than the best dense run."
    auto = [gain for gains in groups.values() for gain in gains.get(AUTO, {}).values()]
    if auto:
        slow = sum(gain < _GOAL for gain in auto)
        note += (
            f" auto is below {_GOAL:g}x dense in {slow} of {len(auto)} cells, at worst {times(min(auto))}."
        )
    return Table("From which share of NaN on an engine wins", note, lines)


def _crossover(gains: dict[float, float]) -> str:
    """Find the least ratio from which on every gain is 1 or more."""
    wins = None
    for ratio in sorted(gains, reverse=True):
        if gains[ratio] < 1:
            break
        wins = ratio
    return "-" if not gains else "never" if wins is None else share(wins)


def _published(results: Results) -> Table:
    lines = []
    for entry in results.analysis.get("published", []):
        line = {"NaN": share(entry["nan_ratio"])}
        low, high = entry["published_low"], entry["published_high"]
        line["published"] = "-" if low is None else f"{low:.2f}-{high:.2f}x"
        line |= {size: times(speed_up) for size, speed_up in entry["ours"].items()}
        lines.append(line)
    note = (
        "Published (arXiv 2601.17180): over a convolution written as a Python loop. Ours, by size: the "
        "planner's choice over torch's own convolution, the faster of two layouts."
    )
    return Table("The time trials of the paper", note, lines)
