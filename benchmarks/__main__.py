"""The command: `python -m benchmarks WHAT ...`, tables on the terminal and JSON in a file each."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks import networks, overhead, pooling, tables
from nansparse.evaluation.conditions import fixed_conditions
from nansparse.evaluation.environment import describe_environment
from nansparse.evaluation.tables import markdown


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        default=["overhead"],
        help="overhead (the default), pooling, networks, paper-tables; for layers: nansparse bench layers",
    )
    parser.add_argument("--repeats", type=int, default=15, help="counted rounds a measurement")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--output", type=Path, default=Path("docs/results"), help="folder for the JSON files")
    options = parser.parse_args()
    known = {"overhead": _overhead, "pooling": _pooling}
    known |= {"networks": _networks, "paper-tables": _paper_tables}
    unknown = [what for what in options.what if what not in known]
    if unknown or options.repeats < 2:
        parser.error(f"expected {', '.join(known)} and at least 2 repeats, got {unknown or options.repeats}")
    options.output.mkdir(parents=True, exist_ok=True)
    for what in options.what:
        with fixed_conditions(options.threads):
            result = {"environment": describe_environment(), "measurements": known[what](options.repeats)}
        path = options.output / f"{what}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {path}")


def _overhead(repeats: int) -> list[dict[str, Any]]:
    from tqdm import tqdm

    done = [overhead.measure_overhead(filters, repeats) for filters in tqdm((32, 64), desc="overhead")]
    rows = [
        {
            "filters": str(m["filters"]),
            "overhead": f"{100 * m['overhead']:.1f} %",
            "ties by chance": "yes: marking is in it" if m["marked"] else "no",
        }
        for m in done
    ]
    print(markdown(rows))
    return done


def _pooling(repeats: int) -> list[dict[str, Any]]:
    from tqdm import tqdm

    cells = [(g, s, r) for g in pooling.GEOMETRIES for s in pooling.SHAPES for r in pooling.RATIOS]
    done = [pooling.measure_pooling(*cell, repeats) for cell in tqdm(cells, desc="pooling", unit="cell")]
    print(markdown(pooling.rows(done)))
    return done


def _networks(repeats: int) -> list[dict[str, Any]]:
    from tqdm import tqdm

    done = [networks.measure_network(name, repeats) for name in tqdm(networks.NETWORKS, desc="networks")]
    print(markdown(networks.rows(done)))
    return done


def _paper_tables(repeats: int) -> list[dict[str, Any]]:
    """Count windows; nothing is timed, so nothing is repeated."""
    del repeats
    done = []
    for network in tables.NETWORKS:
        done.append(tables.make_table(network))
        print(f"{markdown(tables.rows(done[-1]))}\n\nWeights: {network.weights}. {network.why}\n")
    return done


if __name__ == "__main__":
    main()
