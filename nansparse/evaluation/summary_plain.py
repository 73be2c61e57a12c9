"""Tables of `python -m benchmarks`: every row a line; the tables of the paper a column for each setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.summary import Line, Table, number, seconds, share, times, varying

Write = Callable[[float | None], str]
# What a measure is called in a table, and how it is written; others bear their own name.
_WRITTEN: dict[str, tuple[str, Write]] = {
    "speed_up": ("speed-up", times),
    "windows_skipped": ("windows skipped", share),
    "over_box": ("over box", times),
    "macs_skipped": ("MACs skipped", share),
    "macs_repeated": ("MACs repeated", share),
    "dice_inside": ("Dice inside", lambda value: number(value, 4)),
    "volumes_per_minute": ("volumes a minute", lambda value: number(value, 1)),
    "volumes_per_minute_and_core": ("volumes a minute and core", lambda value: number(value, 1)),
    "psnr_db": ("PSNR, dB", lambda value: number(value, 2)),
    "brain_psnr_db": ("PSNR in the brain, dB", lambda value: number(value, 2)),
    "psnr_loss_db": ("PSNR lost in the brain, dB", lambda value: number(value, 2)),
    "overhead": ("overhead", share),
    "nan_sites": ("NaN sites", share),
    "agreement_inside": ("agreement inside", number),
    "peak_memory_mib": ("peak MiB", lambda value: number(value, 1)),
    "of_dense": ("of dense", times),
    "first_call_mib": ("first call MiB", lambda value: number(value, 1)),
    "growth_mib": ("growth MiB", lambda value: number(value, 2)),
    "tensor_growth_mib": ("growth of tensors MiB", lambda value: number(value, 2)),
}


def plain_tables(results: Results) -> list[Table]:
    """Write rows as they are.

    Args:
        results: Of a command that has no table of its own.

    Returns:
        One line a row: what tells its cell from the others, the way, the time, the measures. Where some rows
        are timed, the others have a table of their own.
    """
    rows = [row for row in results.rows if row.done]
    timed = [row for row in rows if row.timing]
    shown = [Table(results.kind.capitalize(), results.analysis.get("note", ""), _lines(timed or rows))]
    if 0 < len(timed) < len(rows):
        shown.append(Table("Not timed", "", _lines([row for row in rows if not row.timing])))
    return [*shown, *_goals(results)]


def _lines(rows: list[Row]) -> list[Line]:
    """Write rows of one kind, timed or not."""
    axes = varying(rows)
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    lines = []
    for row in rows:
        line: Line = {axis: str(row.cell.get(axis, "-")) for axis in axes} | {"run": row.way}
        if row.timing:
            line["time"] = seconds(row.timing)
        line |= dict(_measure(row, name) for name in names)
        lines.append(line)
    return lines


def _goals(results: Results) -> list[Table]:
    """Put goals beside what was reached, where a command has any."""
    lines = [
        {
            "network": entry["network"],
            "run": entry["run"],
            "measure": _WRITTEN.get(entry["measure"], (entry["measure"],))[0],
            "goal": _goal(entry, "goal"),
            "reached": _goal(entry, "reached"),
            "met": "yes" if entry["reached"] >= entry["goal"] else "no",
        }
        for entry in results.analysis.get("goals", [])
    ]
    return [Table("Goals", "What was aimed at, and what was reached.", lines)]


def _goal(entry: dict[str, Any], which: str) -> str:
    return _WRITTEN.get(entry["measure"], ("", times))[1](entry[which])


def paper_tables(results: Results) -> list[Table]:
    """Put the shares of windows skipped beside the published ones.

    Args:
        results: Of `python -m benchmarks paper-tables`.

    Returns:
        A table for each network: a line a block, two columns a setting.
    """
    published = {
        (entry["network"], entry["block"], entry["way"]): entry["text"]
        for entry in results.analysis.get("published", [])
    }
    found: dict[str, dict[str, Line]] = {}
    for row in results.rows:
        network, block = row.cell["network"], row.cell["block"]
        line = found.setdefault(network, {}).setdefault(block, {network: block})
        line[row.way] = number(row.values["windows_skipped"], 2)
        line[f"{row.way}, published"] = published.get((network, block, row.way), "-")
    notes = results.analysis.get("notes", {})
    return [Table(network, notes.get(network, ""), list(lines.values())) for network, lines in found.items()]


def _measure(row: Row, name: str) -> tuple[str, str]:
    heading, write = _WRITTEN.get(name, (name.replace("_", " "), _plain))
    return heading, write(row.values.get(name))


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:g}" if value == int(value) else number(value)
