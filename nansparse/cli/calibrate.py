"""`nansparse calibrate`: measure what convolutions cost here, for `engine="auto"`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nansparse.cli.options import positive, words
from nansparse.engine import Engine, registry
from nansparse.errors import InputError


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: The subparsers of `nansparse`.
    """
    parser = commands.add_parser("calibrate", help="measure what convolutions cost on this machine")
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:1")
    parser.add_argument(
        "--engines",
        type=words,
        default=(),
        metavar="NAMES",
        help="engines to measure, comma between; all that are installed by default. Others are not chosen",
    )
    parser.add_argument("--threads", type=positive, default=None, help="CPU threads; torch's own by default")
    parser.add_argument(
        "--output", type=Path, default=None, help="file to write; the one in the cache folder by default"
    )
    parser.set_defaults(run=run)


def _asked_for(name: str, device: str) -> Engine:
    engine = registry.usable(name)
    if device not in engine.devices:
        raise InputError(f"engine {name!r} runs on {' and '.join(engine.devices)}, not on {device}")
    return engine


def run(options: argparse.Namespace) -> None:
    """Measure, fit and write prices.

    Args:
        options: Parsed arguments.
    """
    import torch
    from tqdm import tqdm

    from nansparse.evaluation.calibration import (
        fit_prices,
        layer_count,
        measure_layers,
        prediction_error,
        price_rows,
    )
    from nansparse.evaluation.conditions import find_device, fixed_conditions
    from nansparse.evaluation.tables import markdown
    from nansparse.imaging.atomic import check_place, whole_file
    from nansparse.prices import known_prices, prices_path

    device = find_device(options.device)
    engines = [registry.get(name) for name in registry.installed()]
    engines = [engine for engine in engines if device.type in engine.devices and not engine.problem]
    if options.engines:
        # What all others are compared with is always measured.
        engines = [_asked_for(name, device.type) for name in dict.fromkeys(("dense", *options.engines))]
    with fixed_conditions(options.threads or torch.get_num_threads()):
        path = options.output or prices_path(device)
        if options.output is None:
            path.parent.mkdir(parents=True, exist_ok=True)
        check_place(path)
        measured = [
            measurement
            for some in tqdm(
                measure_layers(engines, device), total=layer_count(device), desc="calibrating", unit="layer"
            )
            for measurement in some
        ]
        prices = fit_prices(measured, device)
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(prices.to_dict(), indent=1) + "\n")
    known_prices.forget()
    print(markdown(price_rows(prices)))
    for engine, error in prediction_error(prices, measured).items():
        print(f"{engine}: predictions are within {100 * error:.0f} % of half the measurements")
    print(f"wrote {path}")
