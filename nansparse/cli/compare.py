"""`nansparse compare`: a model over volumes, dense and with policies, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nansparse.cli.options import add_keep_memory, positive, real
from nansparse.cli.predict import add_grid, add_network
from nansparse.errors import InputError
from nansparse.memory import keep_memory
from nansparse.policy import Policy

if TYPE_CHECKING:
    from nansparse.comparison import Comparison, WayPlan
    from nansparse.evaluation.results import Results, Row

TASKS = ("segmentation", "regression", "classification")


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: The subparsers of `nansparse`.
    """
    parser = commands.add_parser(
        "compare",
        help="run a model over volumes, dense and with policies, side by side",
        description="Runs a model (the demonstration model by default) over NIfTI or MGZ volumes, folders or "
        "BIDS trees (the MNI152 template by default): time, agreement, equivalence. See docs/compare.md.",
    )
    parser.add_argument(
        "images", nargs="*", type=Path, help="volumes, folders, BIDS trees; the MNI152 template"
    )
    parser.add_argument(
        "--truth", type=Path, help="true labels or images: a file, or a folder of the same names"
    )
    parser.add_argument("--suffix", default="T1w", help="of the images in a BIDS tree")
    add_comparison(parser, "nansparse-compare/compare.json")
    parser.add_argument(
        "--baselines", default="nchw,channels_last,compile,bbox,bf16", help="dense runs; nchw is always there"
    )
    parser.add_argument(
        "--policy", action="append", metavar="MODE[:OPTION=VALUE,...][+PART...]",
        help="a sparse run, such as aggressive:threshold=1+bbox; repeatable. By default both modes at 0.5 "
        "and 1, and the first of them with each of: bbox, bf16, background at the usual margin",
    )  # fmt: skip
    parser.add_argument("--margin", dest="equivalence_margin", type=real, default=0.01, help="of equivalence")
    parser.add_argument("--repeats", type=positive, default=1, help="runs over each volume")
    parser.add_argument(
        "--slices", type=positive, help="so many slices or windows, evenly spaced: a quick look"
    )
    parser.set_defaults(run=run)


def add_comparison(parser: argparse.ArgumentParser, output: str) -> None:
    """Add what `compare` and `bench models` share: the network, the task, the machine, the output.

    Args:
        parser: Of a command.
        output: The JSON file by default.
    """
    add_network(parser, required=False)
    add_grid(parser)
    parser.add_argument("--task", choices=TASKS, default=TASKS[0], help="what the network's output is")
    parser.add_argument("--background-value", type=real, default=0.0, help="intensity of the background")
    add_keep_memory(parser)
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--seed", type=int, default=0, help="of the random marking")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(output),
        help="the JSON file; CSV, pictures and an HTML report beside it",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="start anew; else what is finished is not run again"
    )
    # What every policy starts from; ways change it.
    usual = {name: value for name, value in Policy().to_dict().items() if name != "output_nan"}
    parser.set_defaults(**usual, background=False, margin=0, mask=None, workers=1, compare=False)


def run(options: argparse.Namespace) -> int:
    """Compare.

    Args:
        options: Parsed arguments.

    Returns:
        The exit code: 0, or 1 when something failed.
    """
    from nansparse.cli.conclusion import conclude
    from nansparse.cli.progress import progress_bar
    from nansparse.comparison import compare_case, find_cases
    from nansparse.comparison.analysis import equivalence
    from nansparse.comparison.pictures import draw_case
    from nansparse.evaluation.equivalence import check_margin
    from nansparse.evaluation.progress import run_cells, start_or_resume

    check_margin(options.equivalence_margin)
    environment = set_conditions(options)
    plans = line_up(options)
    cases = {
        case.name: case for case in find_cases(options.images, truth=options.truth, suffix=options.suffix)
    }
    comparison = make_comparison(
        options, plans, options.repeats, options.slices, surfaces=options.slices is None
    )
    if len(cases) == 1:
        next(iter(cases.values())).load()  # the only image: bad input, not a fault among many
    fresh = new_results("compare", options, comparison, environment)
    cells: list[dict[str, Any]] = [{"volume": name} for name in cases]
    results = start_or_resume(fresh, options.output, cells, overwrite=options.overwrite)

    def measure(cell: dict[str, Any]) -> list[Row]:
        with progress_bar(cell["volume"], quiet=False) as tick:
            return compare_case(comparison, cases[cell["volume"]], cell, tick)

    faults = run_cells(results, cells, measure, options.output, unit="volume")
    results.analysis["equivalence"] = equivalence(
        results, plans[0].name, options.task, options.equivalence_margin
    )
    pictured = next((row.cell["volume"] for row in results.rows if row.done), None)
    if pictured is not None:
        faults += draw_case(comparison, cases[pictured], options.output)
    return conclude(results, options.output, faults)


def line_up(options: argparse.Namespace) -> list[WayPlan]:
    """Read which ways are wanted.

    Args:
        options: Parsed arguments.

    Returns:
        The ways, the reference first, none twice.
    """
    from nansparse.comparison.ways import COMPOSITIONS, POLICIES, read_baselines, read_policy, with_parts

    plans = read_baselines(options.baselines)
    texts = options.policy or POLICIES
    policies = [read_policy(text) for text in texts]
    if not options.policy:
        policies += [with_parts(policies[0], [part]) for part in COMPOSITIONS]
    return list({plan.name: plan for plan in [*plans, *policies]}.values())


def make_comparison(
    options: argparse.Namespace, plans: list[WayPlan], repeats: int, subset: int | None, *, surfaces: bool
) -> Comparison:
    """Load the networks and say what is done to every volume.

    Args:
        options: Parsed arguments.
        plans: The ways.
        repeats: Runs over each volume.
        subset: How many pieces of each; all when None.
        surfaces: Whether distances between surfaces are measured.

    Returns:
        The comparison.

    Raises:
        InputError: If weights are given without a model, or an option does not fit.
    """
    from nansparse.cli.recipes import recipe_of
    from nansparse.comparison import Comparison
    from nansparse.engine import registry
    from nansparse.policy import Policy
    from nansparse.prediction import load_networks

    if not options.model:
        if options.model_args:
            raise InputError("--model-args needs --model")
        options.model = ["tissue"]
    for plan in plans:
        if plan.policy is not None:
            Policy(**{**plan.policy, "generator": torch.Generator()})
            if plan.policy.get("engine", "auto") != "auto":
                registry.get(plan.policy["engine"])
    recipe = recipe_of(options)
    networks = load_networks(recipe)
    return Comparison(recipe, networks, plans, options.task, repeats, subset, surfaces)


def new_results(
    kind: str, options: argparse.Namespace, comparison: Comparison, environment: dict[str, Any]
) -> Results:
    """Start results for a run of this comparison.

    Args:
        kind: Of the results.
        options: Parsed arguments.
        comparison: What is done.
        environment: What `set_conditions` gave.

    Returns:
        Results without rows.
    """
    from nansparse.evaluation.results import Results

    recipe = comparison.recipe.to_dict()
    for view in recipe["views"]:
        view["source"].pop("search_path", None)  # the folder of the day says nothing about the numbers
    settings = {
        "task": comparison.task,
        "repeats": comparison.repeats,
        "subset": comparison.subset,
        "ways": [plan.name for plan in comparison.plans],
        "recipe": recipe,
    }
    return Results(kind, options.command_line, environment, settings)


def set_conditions(options: argparse.Namespace) -> dict[str, Any]:
    """Start torch's threads under the conditions of the measurement; call it before anything computes.

    The workers take over the flag for denormals from the thread that starts them, once and for all.

    Args:
        options: Parsed arguments.

    Returns:
        The environment, for the results file.
    """
    from nansparse.evaluation.conditions import find_device, fixed_conditions
    from nansparse.evaluation.environment import describe_environment

    if options.keep_memory:
        keep_memory()
    with fixed_conditions(options.threads):
        return describe_environment(find_device(options.device))
