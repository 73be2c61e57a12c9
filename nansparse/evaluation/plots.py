"""Plots of results, as PNG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nansparse.errors import InputError
from nansparse.evaluation.plots_margins import draw_margins
from nansparse.evaluation.plots_models import draw_settings, draw_ways
from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.summary import varying
from nansparse.evaluation.summary_layers import AUTO
from nansparse.imaging.atomic import whole_file

# Okabe and Ito's colour-blind safe colours and Tol's wine; black is for the planner's choice. Where there are
# more ways than colours, those that come round again have another marker.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
MARKERS = "os^"
MOST_PANELS = 12


def draw_plots(results: Results, path: Path) -> list[Path]:
    """Draw what results of this kind can show.

    Args:
        results: What was measured.
        path: The results file; the plots come beside it.

    Returns:
        The PNG files.
    """
    drawn: dict[str, Callable[[Results, Any], bool]] = {
        "bench-layers": draw_layers,
        "bench-models": draw_settings,
        "compare": draw_ways,
    }
    if results.kind not in drawn:
        return []
    wanted = {f"{path.stem}.png": drawn[results.kind]}
    if results.kind == "bench-models":
        wanted[f"{path.stem}_margins.png"] = draw_margins
    files = []
    for name, draw in wanted.items():
        figure = new_figure()
        if draw(results, figure):
            files.append(path.with_name(name))
            save_figure(figure, files[-1])
    return files


def new_figure() -> Any:
    """Make an empty figure.

    Returns:
        A matplotlib figure that no window knows of.

    Raises:
        InputError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install 'nansparse[evaluation]'") from error
    return Figure(layout="constrained", facecolor="white")


def save_figure(figure: Any, path: Path, dpi: int = 110) -> None:
    """Write a figure, whole or not at all.

    Args:
        figure: A matplotlib figure.
        path: The PNG file.
        dpi: Dots per inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=dpi, format="png")


def draw_layers(results: Results, figure: Any) -> bool:
    """Draw speed-up over the share of skipped windows, a panel for each kind of cell, with the limit.

    Args:
        results: Of `nansparse bench layers`.
        figure: To draw on.

    Returns:
        Whether there was anything to draw.
    """
    rows = [row for row in results.rows if row.done and row.values.get("limit") is not None]
    kept = [axis for axis in varying(rows) if axis != "nan_ratio"] if rows else []
    panels: dict[str, list[Row]] = {}
    for row in rows:
        title = ", ".join(
            f"{row.cell[axis]}" if axis == "size" else f"{axis} {row.cell[axis]}" for axis in kept
        )
        panels.setdefault(title, []).append(row)
    panels = {
        title: panel for title, panel in panels.items() if len({r.cell["nan_ratio"] for r in panel}) > 1
    }
    there, panels = len(panels), dict(list(panels.items())[:MOST_PANELS])
    if not panels:
        return False
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure.set_size_inches(4.2 * columns, 3.4 * lines + 0.5)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    ways = list(dict.fromkeys(row.way for row in rows))
    for axis, (title, panel) in zip(axes, panels.items(), strict=False):
        _draw_panel(axis, panel, ways)
        axis.set_title(title, fontsize=9)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=len(labels), frameon=False, fontsize=9)
    for axis in axes[max(0, len(panels) - columns) : len(panels)]:
        axis.set_xlabel("windows skipped (%)", fontsize=9)
    if there > len(panels):
        figure.suptitle(
            f"The first {len(panels)} of {there} kinds of cells; the CSV file has all", fontsize=9
        )
    figure.supylabel("speed-up over the best dense run (quartiles shaded)", fontsize=9)
    return True


def _point(row: Row) -> tuple[float, float, float, float]:
    """Give per cent skipped, and the speed-up with its quartiles."""
    skipped, speed_up = row.values["windows_skipped"] or 0.0, row.values["speed_up"] or 0.0
    low, high = row.timing["quartiles"] if row.timing else (1.0, 1.0)
    dense = speed_up * (row.seconds or 1.0)
    return 100 * skipped, speed_up, dense / high, dense / low


def _draw_panel(axis: Any, panel: list[Row], ways: list[str]) -> None:
    limit = sorted({(_point(row)[0], row.values["limit"] or 1.0) for row in panel})
    axis.plot(*zip(*limit, strict=True), color="0.6", linestyle="--", label="limit")
    for number, way in enumerate(ways):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number // len(COLOURS) % 3]}
        if way == AUTO:
            style = {"color": "black", "marker": "D"}
        points = [_point(row) for row in panel if row.way == way]
        if points:
            x, middle, worst, best = zip(*sorted(points), strict=True)
            axis.plot(x, middle, **style, markersize=4, label=way)
            axis.fill_between(x, worst, best, color=style["color"], alpha=0.2)
    axis.axhline(1.0, color="0.8", linewidth=1)
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.2g}x" if value < 1 else f"{value:g}x")
    axis.tick_params(labelsize=8)
