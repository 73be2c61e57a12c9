"""The command: `python -m benchmarks WHAT ...`, tables on the terminal and a results file each."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import torch

from benchmarks import (
    library_networks,
    memory,
    network_runs,
    networks,
    overhead,
    pooling,
    synchronisations,
    tables,
    throughput,
    trained_networks,
)
from nansparse.cli.conclusion import print_tables
from nansparse.cli.main import BAD_INPUT
from nansparse.errors import InputError
from nansparse.evaluation.conditions import find_device, fixed_conditions
from nansparse.evaluation.environment import describe_environment
from nansparse.evaluation.progress import check_output
from nansparse.evaluation.results import Results, check_document
from nansparse.evaluation.summary import tables as tables_of
from nansparse.policy import MODES

T = TypeVar("T")
ON_DEVICES = {"networks", "trained-networks", "library-networks"}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        default=["overhead"],
        help=f"{', '.join(BENCHMARKS)}; overhead by default; for layers and models: nansparse bench",
    )
    parser.add_argument("--repeats", type=int, default=15, help="counted rounds a measurement")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--output", type=Path, default=Path("docs/results"), help="folder for the files")
    networks_only = parser.add_argument_group("networks, trained-networks and library-networks")
    networks_only.add_argument("--device", default="cpu", help="cpu or cuda; its name is part of the file's")
    networks_only.add_argument(
        "--slices",
        type=int,
        nargs="+",
        default=[networks.SLICES],
        help="slices that 2D networks get, in turn",
    )
    networks_only.add_argument("--case", default="", metavar="TEXT", help="those with this in their name")
    networks_only.add_argument("--eager", action="store_true", help="leave torch.compile out")
    networks_only.add_argument(
        "--trained", type=Path, default=Path(), metavar="FOLDER", help="weights of trained-networks"
    )
    options = parser.parse_args()
    unknown = [what for what in options.what if what not in BENCHMARKS]
    if unknown or options.repeats < 2:
        parser.error(
            f"expected {', '.join(BENCHMARKS)} and at least 2 repeats, got {unknown or options.repeats}"
        )
    device = find_device(options.device)
    if device.type != "cpu" and set(options.what) - ON_DEVICES:
        parser.error(f"--device is for {' and '.join(sorted(ON_DEVICES))}")
    for what in options.what:
        name = what if device.type == "cpu" else f"{what}-{device.type}"
        path = options.output / f"{name}.json"
        check_output(path)
        command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
        with fixed_conditions(options.threads):
            settings = {"repeats": options.repeats}
            if what in ON_DEVICES:
                settings |= {"device": str(device), "slices": options.slices, "case": options.case}
                settings |= {"eager": options.eager}
                settings |= {"trained": str(options.trained)} if what == "trained-networks" else {}
            results = Results(what, command, describe_environment(device), settings)
            check_document(results.to_dict(), path.name)
            try:
                BENCHMARKS[what](results)
                results.complete = True
            finally:
                written = results.save(path) if results.rows else []
        print_tables(tables_of(results))
        print("wrote " + ", ".join(map(str, written)))


def counted(things: Sequence[T]) -> Iterable[T]:
    """Show progress, with the time that is left.

    Args:
        things: What is gone through.

    Returns:
        The same.
    """
    from tqdm import tqdm

    return cast("Iterable[T]", tqdm(things))


def _overhead(results: Results) -> None:
    for filters in counted(overhead.FILTERS):
        results.rows += overhead.measure_overhead(filters, results.settings["repeats"])
    results.analysis["note"] = overhead.NOTE


def _pooling(results: Results) -> None:
    cells = [(g, s, r) for g in pooling.GEOMETRIES for s in pooling.SHAPES for r in pooling.RATIOS]
    for cell in counted(cells):
        results.rows += pooling.measure_pooling(*cell, results.settings["repeats"])


def _networks(results: Results) -> None:
    _measure_networks(results, networks.CASES, compiled=not results.settings["eager"])
    goals = network_runs.goals(results.rows, networks.CASES)
    results.analysis = {"note": network_runs.NOTE, "goals": goals}


def _trained_networks(results: Results) -> None:
    cases = trained_networks.trained_cases(Path(results.settings["trained"]))
    _measure_networks(results, cases, compiled=not results.settings["eager"])
    device = find_device(results.settings["device"])
    for case in counted(_chosen(results, cases)):
        results.rows += trained_networks.margin_rows(case, networks.SLICES, device)
    results.analysis = {"note": network_runs.NOTE, "goals": network_runs.goals(results.rows, cases)}


def _library_networks(results: Results) -> None:
    _measure_networks(results, library_networks.CASES, compiled=False)
    results.analysis["note"] = network_runs.NOTE


def _chosen(results: Results, cases: Sequence[networks.Case]) -> list[networks.Case]:
    text = results.settings["case"]
    chosen = [case for case in cases if text in case.name]
    if not chosen:
        raise InputError(f"no case has {text!r} in its name: " + "; ".join(case.name for case in cases))
    return chosen


def _measure_networks(results: Results, cases: Sequence[networks.Case], *, compiled: bool) -> None:
    settings = results.settings
    device = find_device(settings["device"])
    inputs = [
        (case, count)
        for case in _chosen(results, cases)
        for count in (settings["slices"] if case.image in networks.SLICED else [1])
    ]
    for case, count in counted(inputs):
        results.rows += network_runs.measure_network(
            case, settings["repeats"], compiled=compiled, device=device, slices=count
        )


def _throughput(results: Results) -> None:
    """Share the cores out in every way; the repeats are volumes a worker."""
    for share in counted(throughput.layouts(os.cpu_count() or 1)):
        results.rows.append(throughput.measure_throughput(*share, results.settings["repeats"]))
    results.analysis["note"] = throughput.NOTE


def _paper_tables(results: Results) -> None:
    """Count windows; nothing is timed, so nothing is repeated."""
    for network in counted(tables.NETWORKS):
        results.rows += tables.count_windows(network)
    results.analysis = tables.published_beside(results.rows)


def _memory(results: Results) -> None:
    """Peaks are measured once, each in a process of its own."""
    threads = results.environment["threads"]
    for network in memory.NETWORKS:
        for ratio in counted(memory.RATIOS):
            results.rows += memory.measure_peaks(network, ratio, threads)
        results.rows.append(memory.measure_growth(network, 0.5, threads))
    results.analysis["note"] = memory.NOTE


def _synchronisations(results: Results) -> None:
    """Operations are counted, so nothing is repeated."""
    for mode in MODES:
        for engine in counted(synchronisations.ENGINES):
            results.rows += synchronisations.measure_waits(engine, mode)
    results.analysis["note"] = synchronisations.NOTE


BENCHMARKS: dict[str, Callable[[Results], None]] = {
    "overhead": _overhead,
    "pooling": _pooling,
    "networks": _networks,
    "trained-networks": _trained_networks,
    "library-networks": _library_networks,
    "throughput": _throughput,
    "paper-tables": _paper_tables,
    "memory": _memory,
    "synchronisations": _synchronisations,
}

if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
