"""`nansparse zoo`: train and score the shipped models."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nansparse.cli.options import positive

MODELS = ("tissue", "digits")


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: The subparsers of `nansparse`.
    """
    parser = commands.add_parser("zoo", help="train or score the shipped models")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train a model on data that comes with a package")
    train.add_argument("model", nargs="?", choices=MODELS, default="tissue", help="tissue by default")
    train.add_argument("--output", type=Path, help="weights file; named after the model by default")
    train.add_argument("--seed", type=int, default=0, help="seed of weights and augmentation")
    train.add_argument("--threads", type=positive, default=2, help="CPU threads")
    train.set_defaults(run=run_train)
    score = actions.add_parser("score", help="judge a model on data kept out of training")
    score.add_argument("model", nargs="?", choices=MODELS, default="tissue", help="tissue by default")
    score.add_argument("--weights", type=Path, default=None, help="weights file; the shipped one by default")
    score.set_defaults(run=run_score)


def run_train(options: argparse.Namespace) -> None:
    """Train a model.

    Args:
        options: Parsed arguments.
    """
    if options.model == "digits":
        from nansparse.zoo.digits_training import train_digits_model as train

        output = options.output or Path("digits.safetensors")
    else:
        from nansparse.zoo.training import train_tissue_model as train

        output = options.output or Path("tissue_fastsurfer.safetensors")
    train(output, seed=options.seed, threads=options.threads)
    print(f"wrote {output}")


def run_score(options: argparse.Namespace) -> None:
    """Print how good a model is on held-out data.

    Args:
        options: Parsed arguments.
    """
    if options.model == "digits":
        _score_digits(options.weights)
        return
    from nansparse.zoo.tissue import score_tissue_model

    scores = score_tissue_model(options.weights)
    print(f"{scores['slices']} slices kept out of training")
    for tissue, value in scores["dice"].items():
        print(f"Dice {tissue:10s} {value:.4f}")
    print(f"{scores['outside']} voxels outside the brain were given a tissue")


def _score_digits(weights: Path | None) -> None:
    from nansparse.evaluation.tables import markdown
    from nansparse.zoo.digits_training import score_digits_model

    scores = score_digits_model(weights)
    low, high = scores["accuracy_interval"]
    print(f"{scores['images']} digits kept out of training")
    print(f"dense: accuracy {scores['accuracy']:.4f}, 95 % confidence interval {low:.4f} to {high:.4f}\n")
    rows = []
    for run in scores["runs"]:
        low, high = run["loss_interval"]
        row = {"aggressive, threshold": f"{run['threshold']:g}", "accuracy": f"{run['accuracy']:.4f}"}
        row |= {"loss": f"{run['loss']:.4f}", "95 % interval of the loss": f"{low:.4f} to {high:.4f}"}
        row |= {f"{layer} skipped": f"{share:.2f}" for layer, share in run["skipped"].items()}
        rows.append(row)
    print(markdown(rows))
