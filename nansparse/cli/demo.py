"""`nansparse demo`: segment a brain dense, conservative and aggressive, and show its cost and its changes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from nansparse.cli.options import add_keep_memory, positive, real
from nansparse.errors import InputError
from nansparse.memory import keep_memory


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: The subparsers of `nansparse`.
    """
    parser = commands.add_parser(
        "demo",
        help="segment a brain dense, conservative and aggressive, with a table and a picture",
        description="Segments every coronal slice of the MNI152 T1 that nilearn carries (or of --image) with "
        "the shipped network, and prints one table of times, skipped work and Dice.",
    )
    parser.add_argument(
        "--image", type=Path, help="a T1 NIfTI or MGZ, skull-stripped; the MNI152 template by default"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("nansparse-demo"), help="folder for labels and picture"
    )
    parser.add_argument(
        "--weights", type=Path, help="a checkpoint of `nansparse zoo train`; the shipped one by default"
    )
    parser.add_argument(
        "--threshold", type=real, default=0.5, help="NaN share from which a window is skipped, (0, 1]"
    )
    parser.add_argument("--epsilon", type=real, default=1e-7, help="relative tolerance of a tie")
    parser.add_argument("--engine", default="auto", help="'auto' or the name of one engine")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument(
        "--slices", type=positive, default=256, help="only the middle slices, for a quick look"
    )
    add_keep_memory(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demonstration.

    Args:
        options: Parsed arguments.

    Returns:
        The exit code: 0, or 1 when something could not be written.

    Raises:
        InputError: If the output folder cannot be made.
    """
    from nansparse.cli.conclusion import conclude
    from nansparse.evaluation.conditions import fixed_conditions
    from nansparse.evaluation.demonstration import demonstrate
    from nansparse.evaluation.subject import load_subject
    from nansparse.imaging.picture import draw_comparison
    from nansparse.policy import Policy
    from nansparse.zoo.tissue import load_tissue_model

    policy = Policy(threshold=options.threshold, epsilon=options.epsilon, engine=options.engine)
    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"--output must be a folder, and {options.output} is a file")
    if options.keep_memory:
        keep_memory()
    # Before the first parallel operation: torch's workers take the processor's flags over when they start.
    with fixed_conditions(options.threads):
        subject = load_subject(options.image)
        model = load_tissue_model(options.weights)
        result = demonstrate(model, subject, policy, threads=options.threads, slices=options.slices)
    options.output.mkdir(parents=True, exist_ok=True)
    drawn = draw_comparison(result, options.output / "demo.png")  # first: the report shows it
    code = conclude(result.results(options.command_line), options.output / "demo.json", [])
    print("wrote " + ", ".join(str(path) for path in [drawn, *result.save_labels(options.output)]))
    return code
