"""`nansparse engines`: which engines there are, what they run on, and what installs the missing ones."""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from nansparse.engine import Engine, registry


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: The subparsers of `nansparse`.
    """
    parser = commands.add_parser(
        "engines",
        help="what is installed, versions, devices, and how to install what is missing",
        description="Lists every engine that this installation knows. Libraries are imported to see whether "
        "they work here.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the engines.

    Args:
        options: Parsed arguments.
    """
    found = [describe(registry.get(name)) for name in registry.names()]
    found += [
        {"engine": name, "status": "broken", "version": "", "devices": [], "problem": fault}
        for name, fault in registry.faults().items()
    ]
    if options.json:
        print(json.dumps({"machine": describe_machine(), "engines": found}, indent=1))
        return
    rows = [("engine", "status", "version", "runs on")]
    rows += [(e["engine"], e["status"], e["version"], ", ".join(e["devices"]) or "-") for e in found]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print(describe_machine())
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    problems = [entry for entry in found if entry["problem"]]
    if problems:
        print()
    for entry in problems:
        print(f"{entry['engine']}: {entry['problem']}")


def describe(engine: Engine) -> dict[str, Any]:
    """Say what is known about one engine.

    Args:
        engine: The engine.

    Returns:
        JSON-able data: engine, status ("ready", "not installed" or "broken"), version of its library, the
        devices that it runs on and that this machine has, and the problem with its remedy.
    """
    problem = engine.problem
    status = "ready" if not problem else "broken" if engine.is_installed else "not installed"
    versions = ", ".join(library.versions for library in engine.libraries if library.versions)
    here = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return {
        "engine": engine.name,
        "status": status,
        "version": versions if engine.libraries else f"torch {torch.__version__}",
        "devices": [] if problem else [device for device in engine.devices if device in here],
        "problem": problem,
    }


def describe_machine() -> str:
    """Say what the engines have to run on.

    Returns:
        torch, its CUDA or ROCm version, the devices.
    """
    built = torch.version.cuda and f"CUDA {torch.version.cuda}"
    built = built or (torch.version.hip and f"ROCm {torch.version.hip}") or "no CUDA"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(count)]
    return f"torch {torch.__version__} ({built}); devices: " + ", ".join(["cpu", *names])
