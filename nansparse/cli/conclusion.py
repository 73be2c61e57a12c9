"""The end of a measuring command: files are written, tables printed, and the exit code tells of faults."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from nansparse.errors import InputError
from nansparse.evaluation.progress import unwritten
from nansparse.evaluation.results import Results
from nansparse.evaluation.summary import Table, tables
from nansparse.evaluation.tables import markdown

WITH_FAULTS = 1


def conclude(results: Results, path: Path, faults: Sequence[str]) -> int:
    """Write the results and what is drawn from them, print the tables, tell of faults.

    Args:
        results: What was measured.
        path: The JSON file; its folder exists.
        faults: What went wrong, a line each.

    Returns:
        The exit code: 0, or 1 when something failed.
    """
    print_tables(tables(results))
    told_faults, written = dict.fromkeys(faults), []
    for what, write in ((str(path), _save), ("the plot", _plot), ("the HTML report", _report)):
        # What cannot be written (a full disk, no matplotlib) must not take the rest with it.
        try:
            written += write(results, path)
        except (OSError, InputError) as error:
            told_faults[unwritten(what, error)] = None
    if written:
        print("wrote " + ", ".join(str(file) for file in written))
    for fault in told_faults:
        print(f"nansparse: {fault}", file=sys.stderr)
    return WITH_FAULTS if told_faults else 0


def print_tables(shown: Sequence[Table]) -> None:
    """Print tables in the form of Markdown.

    Args:
        shown: The tables.
    """
    for table in shown:
        print(f"\n{table.title}. {table.note}\n\n{markdown(table.lines)}")
    print()


def _save(results: Results, path: Path) -> list[Path]:
    return results.save(path)


def _plot(results: Results, path: Path) -> list[Path]:
    from nansparse.evaluation.plots import draw_plots

    return draw_plots(results, path)


def _report(results: Results, path: Path) -> list[Path]:
    from nansparse.evaluation.report import write_report

    return [write_report([(path, results)], path.with_suffix(".html"))]
