"""Results files: one JSON schema for all commands, checked on writing and reading; CSV files beside it.

The schema itself is `results.schema.json` in this folder; docs/results.md explains it.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

from nansparse.errors import InputError
from nansparse.imaging.atomic import whole_file

SCHEMA, VERSION = "nansparse.results", 1
KINDS = (
    *("bench-layers", "bench-models", "compare", "demo"),
    *("library-networks", "memory", "networks", "overhead", "paper-tables", "pooling", "synchronisations"),
    *("throughput", "trained-networks"),
    *("denoiser", "digits", "tissue", "unet"),
)
Cell = dict[str, Any]


@dataclass
class Row:
    """One way of running one cell.

    Attributes:
        cell: What was run: the axes of a grid, or the volume.
        way: How it was run: a dense baseline, an engine, a policy.
        status: "done", "failed", or "unsupported" (this way cannot run this cell).
        fault: Why it failed or cannot run; None if done.
        policy: The options of `nansparse.enable`; None for dense runs.
        timing: What `Timing.to_dict` gives; None where nothing was timed.
        values: Measures by name; None where one does not exist.
        labels: Measures by label and name.
        layers: What nansparse did, layer by layer.
    """

    cell: Cell
    way: str
    status: str = "done"
    fault: str | None = None
    policy: dict[str, Any] | None = None
    timing: dict[str, Any] | None = None
    values: dict[str, float | None] = field(default_factory=dict)
    labels: dict[str, dict[str, float | None]] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether it was measured."""
        return self.status == "done"

    @property
    def seconds(self) -> float | None:
        """The median time of one repeat, or None."""
        return self.timing["median"] if self.timing else None


@dataclass
class Results:
    """The contents of a results file.

    Attributes:
        kind: Which command wrote it, one of `KINDS`.
        command: The command line, as a user would repeat it.
        environment: What `describe_environment` gives.
        settings: What the run was asked for.
        rows: What was measured.
        analysis: What was made from the rows.
        complete: False while cells or volumes are missing.
        created: When the run started, UTC.
    """

    kind: str
    command: str
    environment: dict[str, Any]
    settings: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    analysis: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON-able data, in the form of the schema.

        Returns:
            The document; numbers that are not finite are None.
        """
        return _finite({"schema": SCHEMA, "version": VERSION, **asdict(self)})

    def save(self, path: Path) -> list[Path]:
        """Write the JSON file and its tables, each whole or not at all.

        Args:
            path: The JSON file; its folder must exist. `NAME.csv` and, where there are labels,
                `NAME_labels.csv` come beside it.

        Returns:
            The files.
        """
        document = self.to_dict()
        check_document(document, path.name)
        with whole_file(path) as unfinished:
            unfinished.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        written = [path]
        for suffix, table in (("", _row_table(self.rows)), ("_labels", _label_table(self.rows))):
            if table:
                beside = path.with_name(f"{path.stem}{suffix}.csv")
                with whole_file(beside) as unfinished:
                    _write_csv(table, unfinished)
                written.append(beside)
        return written


def load_results(path: Path) -> Results:
    """Read a results file and check it against the schema.

    Args:
        path: A JSON file that `Results.save` wrote.

    Returns:
        Its contents.

    Raises:
        InputError: If it is missing, no JSON, of another schema version, or does not fit the schema.
    """
    if path.exists() and not path.is_file():  # a device such as /dev/zero never ends
        raise InputError(f"cannot read {path}: it is no file")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path.name} is no JSON file: {error}") from error
    check_document(document, path.name)
    fields = {key: value for key, value in document.items() if key not in ("schema", "version", "rows")}
    return Results(**fields, rows=[Row(**row) for row in document["rows"]])


def check_document(document: Any, name: str) -> None:
    """Check a document against the schema.

    Args:
        document: What a JSON file holds.
        name: What to call the file in the error.

    Raises:
        InputError: If it is of another schema or version, or does not fit; the message names the first place.
    """
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError(f'{name} is no results file of nansparse (expected "schema": "{SCHEMA}")')
    if document.get("version") != VERSION:
        raise InputError(
            f"{name} has version {document.get('version')!r} of the results schema; "
            f"this nansparse reads version {VERSION}: write it anew, or use the release that wrote it"
        )
    try:
        import jsonschema
    except ImportError as error:
        raise InputError("results files need jsonschema: pip install 'nansparse[evaluation]'") from error
    text = (resources.files("nansparse.evaluation") / "results.schema.json").read_text(encoding="utf-8")
    fault = jsonschema.exceptions.best_match(
        jsonschema.Draft202012Validator(json.loads(text)).iter_errors(document)
    )
    if fault is not None:
        raise InputError(
            f"{name} does not fit the results schema at {fault.json_path}: {fault.message[:200]}"
        )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row_table(rows: list[Row]) -> list[dict[str, Any]]:
    table = []
    for row in rows:
        line = {**row.cell, "way": row.way, "status": row.status, "fault": row.fault}
        if row.timing:
            low, high = row.timing["quartiles"]
            line |= {
                "median_s": row.timing["median"],
                "q1_s": low,
                "q3_s": high,
                "repeats": len(row.timing["seconds"]),
            }
        table.append(line | row.values)
    return table


def _label_table(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {**row.cell, "way": row.way, "label": label, **values}
        for row in rows
        for label, values in row.labels.items()
    ]


def _write_csv(table: list[dict[str, Any]], path: Path) -> None:
    columns = list(dict.fromkeys(column for line in table for column in line))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)
