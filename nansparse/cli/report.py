"""`nansparse report`: tables and an HTML page from results files; two files side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nansparse.errors import InputError


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: The subparsers of `nansparse`.
    """
    parser = commands.add_parser(
        "report",
        help="show results of bench and compare; two files side by side",
        description="Prints the tables of one results file, or puts two side by side and says which "
        "differences exceed the noise. With --output it writes a self-contained HTML page.",
    )
    parser.add_argument("first", type=Path, metavar="A.json", help="a results file of bench or compare")
    parser.add_argument("second", type=Path, metavar="B.json", nargs="?", help="another of the same kind")
    parser.add_argument("--output", type=Path, metavar="FILE.html", help="write the page here")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Show one or two results files.

    Args:
        options: Parsed arguments.

    Raises:
        InputError: If the page would replace a results file.
    """
    from nansparse.cli.conclusion import print_tables
    from nansparse.evaluation.report import write_report
    from nansparse.evaluation.results import load_results
    from nansparse.evaluation.sides import side_by_side
    from nansparse.evaluation.summary import tables

    paths = [path for path in (options.first, options.second) if path is not None]
    if options.output is not None and options.output.resolve() in [path.resolve() for path in paths]:
        raise InputError(f"--output would replace the results file {options.output}")
    runs = [(path, load_results(path)) for path in paths]
    shown = side_by_side(*runs) if len(runs) == 2 else tables(runs[0][1])
    if options.output is not None:
        write_report(runs, options.output)
    print_tables(shown)
    for path, results in runs:
        if not results.complete:
            print(f"{path} is incomplete: its command, run again, goes on where it stopped.\n")
    if options.output is not None:
        print(f"wrote {options.output}")
