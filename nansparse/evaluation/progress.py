"""Running a grid cell by cell: every finished cell is on disk, and none is run twice.

The results file is replaced as a whole after each cell, so that an interruption at any moment, even a kill,
loses at most the cell that was running. Started again with the same output, the run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nansparse.errors import InputError
from nansparse.evaluation.results import Cell, Results, Row, check_document, load_results
from nansparse.evaluation.summary import named, varying

Measure = Callable[[Cell], list[Row]]
# What must be the same for two runs to belong into one file.
_SAME_PLACE = ("nansparse", "torch", "processor", "gpu")


def start_or_resume(fresh: Results, path: Path, cells: Sequence[Cell], *, overwrite: bool) -> Results:
    """Take up the results of an interrupted run, or start new ones.

    Args:
        fresh: Results without rows: what this run is.
        path: The results file.
        cells: All cells of this run.
        overwrite: Whether to start anew whatever the file holds.

    Returns:
        What to add rows to.

    Raises:
        InputError: If the file is no results file, holds those of another run or finished cells that this one
            would drop, or cannot be written.
    """
    check_output(path)
    check_document(fresh.to_dict(), path.name)  # what it takes to write results is there
    if overwrite or not path.exists():
        return fresh
    old = load_results(path)
    differing = [name for name in _SAME_PLACE if old.environment.get(name) != fresh.environment.get(name)]
    differing += [name for name in fresh.settings if old.settings.get(name) != fresh.settings[name]]
    if old.kind != fresh.kind or differing:
        what = ", ".join(differing) or "another command"
        raise InputError(
            f"{path} holds the results of another run ({what}): --overwrite, or another --output"
        )
    wanted = {_key(cell) for cell in cells}
    dropped = {_key(row.cell) for row in old.rows if row.done} - wanted
    if dropped:
        raise InputError(
            f"{path} holds {len(dropped)} finished cell(s) that are not in this run, and they would be lost: "
            "--overwrite, or another --output"
        )
    old.complete = False
    return old


def check_output(path: Path) -> None:
    """Check, before hours are spent, that results can be written.

    Args:
        path: The results file that is wanted.

    Raises:
        InputError: If it is not named `*.json` (CSV, plots and page get its name with other endings), or
            its folder cannot be made or written to.
    """
    if path.suffix != ".json":
        raise InputError(f"--output must name a .json file, got {path}")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        TemporaryDirectory(dir=path.parent).cleanup()
    except OSError as error:
        raise InputError(f"cannot write into the folder {path.parent}: {error.strerror}") from error


def run_cells(
    results: Results,
    cells: Sequence[Cell],
    measure: Measure,
    path: Path,
    *,
    unit: str = "cell",
    quiet: bool = False,
) -> list[str]:
    """Measure the cells that are not in the results yet.

    Args:
        results: Takes the rows.
        cells: All cells of the run.
        measure: Measures one; what it raises is recorded, and the next cell follows.
        path: The results file, replaced after each cell.
        unit: What a cell is called while progress is shown.
        quiet: Whether to show no progress.

    Returns:
        What went wrong, a line each; empty if nothing did.
    """
    from tqdm import tqdm

    wanted = {_key(cell) for cell in cells}
    failed = {_key(row.cell) for row in results.rows if row.status == "failed"}
    results.rows = [row for row in results.rows if _key(row.cell) in wanted - failed]
    finished = {_key(row.cell) for row in results.rows}
    todo = [cell for cell in cells if _key(cell) not in finished]
    fault = ""
    for cell in tqdm(todo, total=len(cells), initial=len(cells) - len(todo), unit=unit, disable=quiet):
        results.rows += _measured(cell, measure)
        fault = _try_to_save(results, path)
    results.complete = True
    axes = varying(results.rows)
    faults = [
        f"{named(row.cell, axes)}: {row.way}: {row.fault}" for row in results.rows if row.status == "failed"
    ]
    return faults + ([fault] if fault else [])


def told(error: BaseException) -> str:
    """Tell an error in one line.

    Args:
        error: Any error.

    Returns:
        What the system says (a full disk), or the type, unless nansparse raised it on purpose, and the first
        line of its text.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}".rstrip(": ")


def _measured(cell: Cell, measure: Measure) -> list[Row]:
    try:
        return measure(cell)
    except (
        Exception
    ) as error:  # whatever a model or an engine raises: the other cells are still worth running
        return [Row(cell, "all", status="failed", fault=told(error))]


def _try_to_save(results: Results, path: Path) -> str:
    # A full disk may have room again after the next cell; the rows are still in memory.
    try:
        results.save(path)
    except OSError as error:
        return unwritten(str(path), error)
    return ""


def unwritten(what: str, error: Exception) -> str:
    """Say that something could not be written.

    Args:
        what: It.
        error: Why.

    Returns:
        One line.
    """
    return f"{what} could not be written: {told(error)}"


def _key(cell: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(cell.items()))
