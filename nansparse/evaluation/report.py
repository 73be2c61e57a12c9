"""The HTML report: one file that opens from disk, with tables that sort, plots and pictures inside.

It loads nothing from anywhere, and its content security policy makes the browser refuse to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from nansparse.errors import InputError
from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.sides import side_by_side
from nansparse.evaluation.summary import Table, number, share, tables
from nansparse.imaging.atomic import whole_file

# Tables of layers: of a large sweep the first ones, or the file could not be opened.
MOST_LAYER_TABLES = 24


def write_report(runs: Sequence[tuple[Path, Results]], path: Path) -> Path:
    """Write the report of one run, or of several side by side.

    Args:
        runs: Each results file and what it holds; PNG files beside it whose names start with its name are
            shown.
        path: The HTML file, whole or not at all.

    Returns:
        The path.

    Raises:
        InputError: If jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise InputError("the HTML report needs jinja2: pip install 'nansparse[evaluation]'") from error
    source = (resources.files("nansparse.evaluation") / "report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    names = [file.stem for file, _ in runs]
    text = environment.from_string(source).render(
        title="nansparse: " + " and ".join(names),
        shared=side_by_side(*runs) if len(runs) == 2 else [],
        runs=[_run(file, results) for file, results in runs],
    )
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return path


def _run(file: Path, results: Results) -> dict[str, Any]:
    facts = {**results.environment, **results.settings}
    return {
        "name": file.stem,
        "kind": results.kind,
        "created": results.created,
        "command": results.command,
        "complete": results.complete,
        "flushed": results.environment["denormals_flushed"],
        "tables": tables(results),
        "pictures": [_picture(picture) for picture in sorted(file.parent.glob(f"{file.stem}*.png"))],
        "layers": [_layers(row) for row in results.rows if row.layers][:MOST_LAYER_TABLES],
        "facts": [(key, _plain(value)) for key, value in facts.items()],
    }


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _picture(path: Path) -> dict[str, str]:
    return {"name": path.stem, "data": base64.b64encode(path.read_bytes()).decode("ascii")}


def _layers(row: Row) -> Table:
    lines = []
    for layer in row.layers:
        windows, macs = layer.get("windows", 0), layer.get("macs", 0)
        lines.append(
            {
                "layer": layer["layer"] or "(model)",
                "operation": layer["operation"],
                "engine": layer["engine"],
                "windows skipped": share(layer["windows_skipped"] / windows if windows else None),
                "MACs skipped": share(layer["macs_skipped"] / macs if macs else None),
                "densified": str(layer.get("densified", 0)),
                "seconds": number(layer.get("seconds"), 3),
            }
        )
    cell = " ".join(str(value) for value in row.cell.values())
    return Table(f"{row.way} ({cell})", "In the order in which the layers were first called.", lines)
