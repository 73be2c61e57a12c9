"""`nansparse bench`: single layers, or a model and its thresholds, over a grid; resumable."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nansparse.cli.compare import add_comparison, make_comparison, new_results, set_conditions
from nansparse.cli.options import positive, real, words
from nansparse.errors import InputError

if TYPE_CHECKING:
    from nansparse.evaluation.axes import Axis
    from nansparse.evaluation.grid import Grid


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: The subparsers of `nansparse`.
    """
    parser = commands.add_parser("bench", help="measure layers, or a model and its thresholds, over a grid")
    actions = parser.add_subparsers(dest="action", required=True, metavar="WHAT")
    layers = actions.add_parser(
        "layers",
        help="one convolution: engines against the best dense run",
        description="Times single convolutions over share, shape of NaN, geometry, threshold. Axes: size, "
        "channels, kernel, stride, mask, nan_ratio, threshold, dtype, threads, device.",
    )
    layers.add_argument("--engines", type=words, default=(), help="engines, and 'auto'; all by default")
    _add_grid_options(layers)
    _add_run_options(layers, "nansparse-bench/layers.json")
    layers.set_defaults(run=run_layers)
    models = actions.add_parser(
        "models",
        help="a model and its thresholds: time, skips, task metric, Pareto front",
        description="Sweeps the options of nansparse over a model (the demonstration model by default) on a "
        "volume (MNI152 by default). Axes: mode, threshold, epsilon, max_ties, background, engine, threads.",
    )
    models.add_argument("image", nargs="?", type=Path, help="a NIfTI or MGZ volume; the MNI152 template")
    models.add_argument("--truth", type=Path, help="its true labels or image")
    models.add_argument("--slices", type=positive, default=4, help="slices or windows, evenly spaced")
    models.add_argument("--loss", type=real, default=0.5, help="per cent of Dice that the setting may cost")
    _add_grid_options(models)
    add_comparison(models, "nansparse-bench/models.json")
    models.set_defaults(run=run_models)


def _add_grid_options(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--preset",
        default="quick",
        help="quick (under 2 minutes on 2 cores), paper, full; of layers also engines",
    )
    chosen.add_argument(
        "--sweep", type=Path, metavar="FILE.toml", help="[[grid]] tables of axes, each a list of values"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="AXIS=V,V",
        help="set an axis of the grid; repeatable",
    )
    parser.add_argument(
        "--repeats", type=positive, help="samples of every way in every cell (the grid's own)"
    )


def _add_run_options(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument(
        "--output", type=Path, default=Path(output), help="JSON file; CSV, plots and an HTML report beside it"
    )
    parser.add_argument("--overwrite", action="store_true", help="start anew; else finished cells are kept")


def run_layers(options: argparse.Namespace) -> int:
    """Measure single layers.

    Args:
        options: Parsed arguments.

    Returns:
        The exit code: 0, or 1 when something failed.
    """
    from nansparse.cli.conclusion import conclude
    from nansparse.engine import registry
    from nansparse.evaluation.axes import LAYER_AXES
    from nansparse.evaluation.conditions import find_device, fixed_conditions
    from nansparse.evaluation.environment import describe_environment
    from nansparse.evaluation.layers import AUTO, check_layer, measure_layer, published_beside_ours
    from nansparse.evaluation.presets import LAYER_PRESETS
    from nansparse.evaluation.progress import run_cells, start_or_resume
    from nansparse.evaluation.results import Results

    for name in options.engines:
        if name != AUTO:
            registry.get(name)
    grid = choose_grid(options, LAYER_AXES, LAYER_PRESETS)
    with fixed_conditions(options.threads):
        cells = grid.cells(options.threads)
        settings = {"repeats": grid.repeats, "engines": list(options.engines)}
        devices = [find_device(str(cell["device"])) for cell in cells]
        environment = describe_environment(next((one for one in devices if one.type != "cpu"), None))
        fresh = Results("bench-layers", options.command_line, environment, settings)
        for cell in cells:
            check_layer(cell)
        results = start_or_resume(fresh, options.output, cells, overwrite=options.overwrite)
        faults = run_cells(
            results, cells, lambda cell: measure_layer(cell, grid.repeats, options.engines), options.output
        )
    results.analysis = {"published": published_beside_ours(results)}
    return conclude(results, options.output, faults)


def run_models(options: argparse.Namespace) -> int:
    """Sweep the options of nansparse over a model.

    Args:
        options: Parsed arguments.

    Returns:
        The exit code: 0, or 1 when something failed.

    Raises:
        InputError: If the loss is outside [0, 100].
    """
    from nansparse.cli.conclusion import conclude
    from nansparse.comparison import find_cases
    from nansparse.comparison.sweep import analyse, measure_setting
    from nansparse.comparison.ways import BASELINES
    from nansparse.evaluation.axes import MODEL_AXES
    from nansparse.evaluation.presets import MODEL_PRESETS
    from nansparse.evaluation.progress import run_cells, start_or_resume

    if not 0 <= options.loss <= 100:
        raise InputError(f"--loss must be a number of per cent in [0, 100], got {options.loss}")
    grid = choose_grid(options, MODEL_AXES, MODEL_PRESETS)
    environment = set_conditions(options)
    cells = grid.cells(options.threads)
    (case,) = find_cases([options.image] if options.image else [], truth=options.truth)
    dense = [BASELINES["nchw"], BASELINES["channels_last"]]
    comparison = make_comparison(options, dense, grid.repeats, options.slices, surfaces=False)
    fresh = new_results("bench-models", options, comparison, environment)
    fresh.settings["volume"] = case.name
    case.load()  # an image that cannot be read is told before anything is written
    results = start_or_resume(fresh, options.output, cells, overwrite=options.overwrite)
    faults = run_cells(
        results, cells, lambda cell: measure_setting(comparison, case, cell), options.output, unit="setting"
    )
    results.analysis = analyse(results, options.task, options.loss / 100)
    return conclude(results, options.output, faults)


def choose_grid(options: argparse.Namespace, axes: dict[str, Axis], presets: dict[str, Grid]) -> Grid:
    """Find the grid that the arguments ask for.

    Args:
        options: Parsed arguments.
        axes: The axes there are.
        presets: The grids that have a name.

    Returns:
        The grid.
    """
    from nansparse.evaluation.grid import load_grid, read_changes
    from nansparse.evaluation.presets import find_preset

    quick = presets["quick"]
    grid = (
        load_grid(options.sweep, axes, quick.repeats)
        if options.sweep
        else find_preset(presets, options.preset)
    )
    return grid.with_axes(read_changes(options.set, axes), options.repeats)
