"""`nansparse zoo`: train and score the shipped demonstration model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nansparse.cli.options import positive


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: The subparsers of `nansparse`.
    """
    parser = commands.add_parser("zoo", help="train or score the demonstration model")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train the tissue model on the MNI152 template")
    train.add_argument(
        "--output", type=Path, default=Path("tissue_fastsurfer.safetensors"), help="weights file"
    )
    train.add_argument("--seed", type=int, default=0, help="seed of weights and augmentation")
    train.add_argument("--threads", type=positive, default=2, help="CPU threads")
    train.set_defaults(run=run_train)
    score = actions.add_parser("score", help="Dice on slices kept out of training")
    score.add_argument("--weights", type=Path, default=None, help="weights file; the shipped one by default")
    score.set_defaults(run=run_score)


def run_train(options: argparse.Namespace) -> None:
    """Train the tissue model.

    Args:
        options: Parsed arguments.
    """
    from nansparse.zoo.training import train_tissue_model

    train_tissue_model(options.output, seed=options.seed, threads=options.threads)
    print(f"wrote {options.output}")


def run_score(options: argparse.Namespace) -> None:
    """Print Dice on held-out slices.

    Args:
        options: Parsed arguments.
    """
    from nansparse.zoo.tissue import score_tissue_model

    scores = score_tissue_model(options.weights)
    print(f"{scores['slices']} slices kept out of training")
    for tissue, value in scores["dice"].items():
        print(f"Dice {tissue:10s} {value:.4f}")
    print(f"{scores['outside']} voxels outside the brain were given a tissue")
