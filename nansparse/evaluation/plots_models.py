"""Plots of models: the settings of a sweep with their Pareto front; the ways of a comparison."""

from __future__ import annotations

import statistics
from typing import Any

from nansparse.evaluation.results import Results, Row

_AGGRESSIVE, _CONSERVATIVE, _DENSE = "#d55e00", "#0072b2", "0.6"


def draw_settings(results: Results, figure: Any) -> bool:
    """Draw loss over speed-up, the Pareto front as a line, the recommended setting ringed.

    Args:
        results: Of `nansparse bench models`.
        figure: To draw on.

    Returns:
        Whether there was anything to draw.
    """
    rows = [row for row in results.rows if row.done and row.policy and "loss" in row.values]
    if not rows:
        return False
    figure.set_size_inches(8, 5)
    axis = figure.subplots()
    for mode, colour in (("conservative", _CONSERVATIVE), ("aggressive", _AGGRESSIVE)):
        for marked, marker in ((False, "o"), (True, "s")):
            chosen = [
                r for r in rows if r.cell["mode"] == mode and (r.cell["background"] != "none") == marked
            ]
            if chosen:
                label = mode + (", background NaN" if marked else "")
                axis.scatter(*_points(chosen), c=colour, marker=marker, label=label, alpha=0.8)
    front = [row for row in rows if row.cell in results.analysis.get("pareto", [])]
    axis.plot(
        *_points(sorted(front, key=_speed_up)),
        color="0.4",
        linewidth=1,
        zorder=0,
        label="Pareto front, with thresholds",
    )
    for row in front:
        axis.annotate(
            f" {row.cell['threshold']:g}",
            (_speed_up(row), 100 * (row.values["loss"] or 0.0)),
            fontsize=7,
            textcoords="offset points",
            xytext=(3, 4),
        )
    best = [row for row in rows if row.cell == results.analysis.get("recommended", {}).get("cell")]
    if best:
        axis.scatter(*_points(best), s=180, facecolors="none", edgecolors="black", label="recommended")
    accepted = 100 * results.analysis.get("accepted_loss", 0.0)
    axis.axhline(accepted, color="0.8", linestyle=":", label=f"accepted loss, {accepted:g} %")
    axis.axvline(1.0, color="0.8", linewidth=1)
    axis.set_xlabel("speed-up over the faster dense layout of the same cell")
    axis.set_ylabel("loss against the dense run (%)")
    axis.legend(fontsize=8, frameon=False)
    return True


def draw_ways(results: Results, figure: Any) -> bool:
    """Draw the time of every way, as bars with the smallest and largest volume.

    Args:
        results: Of `nansparse compare`.
        figure: To draw on.

    Returns:
        Whether there was anything to draw.
    """
    groups: dict[str, list[Row]] = {}
    for row in results.rows:
        if row.done and row.seconds is not None:
            groups.setdefault(row.way, []).append(row)
    if not groups:
        return False
    figure.set_size_inches(9, 0.36 * len(groups) + 1.2)
    axis = figure.subplots()
    names = list(groups)[::-1]
    for place, name in enumerate(names):
        seconds = [row.seconds or 0.0 for row in groups[name]]
        middle = statistics.median(seconds)
        policy = groups[name][0].policy
        colour = (
            _DENSE if policy is None else _AGGRESSIVE if policy["mode"] == "aggressive" else _CONSERVATIVE
        )
        spread = [[middle - min(seconds)], [max(seconds) - middle]] if len(seconds) > 1 else None
        axis.barh(place, middle, color=colour, xerr=spread)
        gain = statistics.median([_speed_up(row) for row in groups[name]])
        # Beyond the spread, which would strike it through.
        axis.text(max(seconds), place, f" {middle:.1f} s, {gain:.2f}x", va="center", fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    # Room for the longest label after the longest bar.
    axis.margins(x=0.25)
    axis.set_xlabel("seconds a volume (median)")
    return True


def _speed_up(row: Row) -> float:
    return row.values["speed_up"] or 0.0


def _points(rows: list[Row]) -> tuple[list[float], list[float]]:
    return [_speed_up(row) for row in rows], [100 * (row.values["loss"] or 0.0) for row in rows]
