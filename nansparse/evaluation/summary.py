"""What a results file says, as tables of text: for the terminal, Markdown and the HTML report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nansparse.evaluation.results import Results, Row

Line = dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table with a caption.

    Attributes:
        title: A few words.
        note: How to read it; empty if that is plain.
        lines: Column name to text; all lines have the columns of the first.
    """

    title: str
    note: str
    lines: Sequence[Line]


def tables(results: Results) -> list[Table]:
    """Summarise results of any kind.

    Args:
        results: Read or just measured.

    Returns:
        The tables that such results have, the most important first; tables without lines are left out.
    """
    from nansparse.evaluation.summary_compare import comparison_tables
    from nansparse.evaluation.summary_demo import demo_tables
    from nansparse.evaluation.summary_layers import layer_tables
    from nansparse.evaluation.summary_models import model_tables
    from nansparse.evaluation.summary_plain import paper_tables, plain_tables

    own = {
        "bench-layers": layer_tables,
        "bench-models": model_tables,
        "compare": comparison_tables,
        "demo": demo_tables,
        "paper-tables": paper_tables,
    }
    made = own.get(results.kind, plain_tables)(results)
    return [table for table in [*made, _faults(results)] if table.lines]


def varying(rows: Iterable[Row]) -> list[str]:
    """Find the axes along which cells differ.

    Args:
        rows: Some rows.

    Returns:
        Their names, in order; at least one.
    """
    values: dict[str, set[Any]] = {}
    for row in rows:
        for name, value in row.cell.items():
            values.setdefault(name, set()).add(value)
    return [name for name, seen in values.items() if len(seen) > 1] or list(values)[:1]


def named(cell: dict[str, Any], axes: Sequence[str]) -> str:
    """Name a cell by what tells it from the others.

    Args:
        cell: Axis to value.
        axes: What `varying` gives.

    Returns:
        "mask=blob nan_ratio=0.5"; all axes if the cell has none of these.
    """
    told = [name for name in axes if name in cell] or list(cell)
    return " ".join(f"{name}={cell[name]}" for name in told)


def by_cell(rows: Iterable[Row]) -> list[list[Row]]:
    """Group rows by their cells.

    Args:
        rows: In any order.

    Returns:
        The rows of each cell, cells in the order in which they first came.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(repr(sorted(row.cell.items())), []).append(row)
    return list(groups.values())


def share(value: float | None) -> str:
    """Write a share as per cent.

    Args:
        value: In [0, 1], or None.

    Returns:
        "12.3 %", or "-".
    """
    return "-" if value is None else f"{100 * value:.1f} %"


def times(value: float | None) -> str:
    """Write a factor.

    Args:
        value: The factor, or None.

    Returns:
        "1.23x", or "-".
    """
    return "-" if value is None else f"{value:.2f}x"


def number(value: float | None, digits: int = 4) -> str:
    """Write a measure.

    Args:
        value: The measure, or None.
        digits: After the point.

    Returns:
        The number, or "-".
    """
    if value is None:
        return "-"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text  # no "-0.00"


def seconds(timing: dict[str, Any] | None) -> str:
    """Write a timing as median and quartiles, in the unit that reads best.

    Args:
        timing: What `Timing.to_dict` gives, or None.

    Returns:
        "1.23 ms [1.20, 1.31]", or "-"; the quartiles are left out where there is one sample.
    """
    if timing is None:
        return "-"
    median = timing["median"]
    unit, factor = ("s", 1.0) if median >= 1 else ("ms", 1e3) if median >= 1e-3 else ("us", 1e6)
    low, high = (factor * quartile for quartile in timing["quartiles"])
    spread = f" [{low:.3g}, {high:.3g}]" if len(timing["seconds"]) > 1 else ""
    return f"{factor * median:.3g} {unit}{spread}"


def _faults(results: Results) -> Table:
    axes = varying(results.rows)
    lines = [
        {"cell": named(row.cell, axes), "run": row.way, "fault": row.fault or ""}
        for row in results.rows
        if row.status == "failed"
    ]
    return Table("Failed", "These are missing above.", lines)
