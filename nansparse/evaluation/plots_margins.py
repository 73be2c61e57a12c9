"""The surface of a sweep over thresholds and margins: Dice inside and speed-up, as two heat maps."""

from __future__ import annotations

import statistics
from typing import Any

from nansparse.evaluation.axes import NO_BACKGROUND
from nansparse.evaluation.results import Results, Row

# Dice below it is as dark as this: else one threshold that loses everything would hide what matters.
LEAST_SHOWN = 0.96


def draw_margins(results: Results, figure: Any) -> bool:
    """Draw Dice of the worst label inside, and the speed-up, over threshold and margin.

    Args:
        results: Of `nansparse bench models`.
        figure: To draw on.

    Returns:
        Whether there was anything to draw: two thresholds and two margins of one mode at least.
    """
    margins = results.analysis.get("margins")
    if not margins:
        return False
    mode = margins["smallest"][0]["mode"]
    cells: dict[tuple[int, float], list[Row]] = {}
    for row in results.rows:
        if row.done and row.policy and row.cell["mode"] == mode and row.cell["background"] != NO_BACKGROUND:
            cells.setdefault((int(row.cell["background"]), row.cell["threshold"]), []).append(row)
    widths, thresholds = sorted({width for width, _ in cells}), sorted({value for _, value in cells})
    if len(widths) < 2 or len(thresholds) < 2:
        return False
    figure.set_size_inches(10, 0.5 * len(widths) + 1.8)
    panels = (
        ("Dice with the dense labels, inside, worst label", _worst, "{:.4f}", ("viridis", LEAST_SHOWN)),
        ("speed-up over the faster dense layout", _speed_up, "{:.2f}x", ("cividis", None)),
    )
    for axis, (title, measure, form, colours) in zip(figure.subplots(1, 2), panels, strict=True):
        found = {key: statistics.median([measure(row) for row in rows]) for key, rows in cells.items()}
        _draw_map(axis, found, widths, thresholds, form, colours)
        axis.set_title(title, fontsize=10)
    _ring_smallest(figure.axes[0], margins, mode, widths, thresholds)
    figure.supxlabel(
        f"{mode} mode; ringed: the smallest margin with Dice >= {margins['least_dice']:g}", fontsize=9
    )
    return True


def _draw_map(
    axis: Any,
    found: dict[tuple[int, float], float],
    widths: list[int],
    thresholds: list[float],
    form: str,
    colours: tuple[str, float | None],
) -> None:
    table = [[found.get((width, threshold), float("nan")) for threshold in thresholds] for width in widths]
    shown = axis.imshow(table, aspect="auto", cmap=colours[0], vmin=colours[1], origin="lower")
    low, high = shown.get_clim()
    for y, line in enumerate(table):
        for x, value in enumerate(line):
            dark = high == low or (value - low) / (high - low) < 0.6
            axis.text(
                x, y, form.format(value), ha="center", va="center", fontsize=8, color="w" if dark else "k"
            )
    axis.set_xticks(range(len(thresholds)), [f"{threshold:g}" for threshold in thresholds])
    axis.set_yticks(range(len(widths)), [str(width) for width in widths])
    axis.set_xlabel("threshold")
    axis.set_ylabel("margin (voxels)")


def _ring_smallest(
    axis: Any, margins: dict[str, Any], mode: str, widths: list[int], thresholds: list[float]
) -> None:
    for entry in margins["smallest"]:
        if entry["mode"] == mode and entry["margin"] is not None:
            x, y = thresholds.index(entry["threshold"]), widths.index(entry["margin"])
            axis.scatter([x], [y], s=900, facecolors="none", edgecolors="#d55e00", linewidths=2)


def _worst(row: Row) -> float:
    return _or_nan(row.values.get("dice_inside_worst_label"))


def _speed_up(row: Row) -> float:
    return _or_nan(row.values.get("speed_up"))


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
