"""`nansparse zoo`: train and score the shipped models."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from nansparse.cli.options import positive
from nansparse.errors import InputError

MODELS = ("tissue", "unet", "digits", "denoiser")


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
    train.add_argument("--filters", type=positive, help="width of the tissue network, 64 by default")
    train.set_defaults(run=run_train)
    score = actions.add_parser("score", help="judge a model on data kept out of training")
    score.add_argument("model", nargs="?", choices=MODELS, default="tissue", help="tissue by default")
    score.add_argument("--weights", type=Path, default=None, help="weights file; the shipped one by default")
    score.add_argument("--output", type=Path, help="write the scores to this JSON file too, CSV beside it")
    score.set_defaults(run=run_score)


def run_train(options: argparse.Namespace) -> None:
    """Train a model.

    Args:
        options: Parsed arguments.

    Raises:
        InputError: If a width is asked for where there is no choice.
    """
    train, name = _training(options.model)
    width = {}
    if options.filters is not None:
        if options.model != "tissue":
            raise InputError(f"--filters is for the tissue network, got {options.model}")
        width, name = {"num_filters": options.filters}, f"tissue_fastsurfer_{options.filters}.safetensors"
    output = options.output or Path(name)
    train(output, seed=options.seed, threads=options.threads, **width)
    print(f"wrote {output}")


def _training(model: str) -> tuple[Callable[..., None], str]:
    """Find the training of a model, and what its weights file is called."""
    if model == "digits":
        from nansparse.zoo.digits_training import train_digits_model

        return train_digits_model, "digits.safetensors"
    if model == "denoiser":
        from nansparse.zoo.denoiser_training import train_denoiser

        return train_denoiser, "denoiser.safetensors"
    if model == "unet":
        from nansparse.zoo.tissue_unet import train_tissue_unet

        return train_tissue_unet, "tissue_unet.safetensors"
    from nansparse.zoo.training import train_tissue_model

    return train_tissue_model, "tissue_fastsurfer.safetensors"


def run_score(options: argparse.Namespace) -> None:
    """Print how good a model is on held-out data.

    Args:
        options: Parsed arguments.
    """
    from nansparse.evaluation.conditions import fixed_conditions
    from nansparse.evaluation.environment import describe_environment
    from nansparse.evaluation.progress import check_output

    if options.output is not None:
        check_output(options.output)
    judges = {
        "tissue": _score_tissue,
        "unet": _score_unet,
        "digits": _score_digits,
        "denoiser": _score_denoiser,
    }
    with fixed_conditions(torch.get_num_threads()):
        scores = judges[options.model](options.weights)
        environment = describe_environment()
    if options.output is not None:
        from nansparse.cli.scores import score_rows
        from nansparse.evaluation.results import Results

        rows = score_rows(options.model, scores)
        results = Results(options.model, options.command_line, environment, {}, rows, complete=True)
        print("wrote " + ", ".join(str(path) for path in results.save(options.output)))


def _score_tissue(weights: Path | None) -> dict[str, Any]:
    from nansparse.zoo.tissue import score_tissue_model

    return _print_tissues(score_tissue_model(weights))


def _score_unet(weights: Path | None) -> dict[str, Any]:
    from nansparse.zoo.tissue_unet import score_tissue_unet

    return _print_tissues(score_tissue_unet(weights))


def _print_tissues(scores: dict[str, Any]) -> dict[str, Any]:
    print(f"{scores['slices']} slices kept out of training")
    for tissue, value in scores["dice"].items():
        print(f"Dice {tissue:10s} {value:.4f}")
    print(f"{scores['outside']} voxels outside the brain were given a tissue")
    return scores


def _score_digits(weights: Path | None) -> dict[str, Any]:
    from nansparse.evaluation.tables import markdown
    from nansparse.zoo.digits_training import score_digits_model

    scores = score_digits_model(weights)
    low, high = scores["accuracy_interval"]
    print(f"{scores['images']} digits kept out of training")
    print(f"dense: accuracy {scores['accuracy']:.4f}, 95 % confidence interval {low:.4f} to {high:.4f}\n")
    print("aggressive mode:\n")
    rows = []
    for run in scores["runs"]:
        low, high = run["loss_interval"]
        row = {"order": "pool, rectify" if run["pool_first"] else "rectify, pool (as published)"}
        row |= {"max_ties": str(run["max_ties"]), "threshold": f"{run['threshold']:g}"}
        row |= {"accuracy": f"{run['accuracy']:.4f}"}
        row |= {"loss": f"{run['loss']:.4f}", "95 % interval of the loss": f"{low:.4f} to {high:.4f}"}
        row |= {f"{layer} skipped": f"{share:.2f}" for layer, share in run["skipped"].items()}
        rows.append(row)
    print(markdown(rows))
    return scores


def _score_denoiser(weights: Path | None) -> dict[str, Any]:
    from nansparse.evaluation.tables import markdown
    from nansparse.zoo.denoiser_score import MARGIN, SWEPT_LEVEL, score_denoiser

    scores = score_denoiser(weights)
    print(f"{scores['slices']} slices kept out of training, Rician noise\n")
    rows = []
    for level in scores["levels"]:
        names = {
            "noisy": "none",
            "gaussian": f"Gaussian, {level['width_voxels']:g} voxels",
            "denoiser": "denoiser",
        }
        for key, name in names.items():
            rows.append({"noise": f"{100 * level['level']:g} %", "filter": name, **_quality(level[key])})
    print(markdown(rows))
    backgrounds = {"noise": "noise", "zero": "zero", "marked": f"zero, NaN beyond {MARGIN} cells"}
    rows = []
    for run in scores["runs"]:
        row = {"background": backgrounds[run["background"]], "mode": run["mode"]}
        row |= {"threshold": f"{run['threshold']:g}", "MACs skipped": f"{100 * run['macs_skipped']:.1f} %"}
        row |= {**_quality(run), "PSNR lost in the brain": f"{round(run['psnr_loss_db'], 2) + 0.0:.2f} dB"}
        rows.append(row)
    print(f"\nunder nansparse, {100 * SWEPT_LEVEL:g} % of noise, {scores['swept_slices']} slices\n")
    print(markdown(rows))
    return scores


def _quality(measures: dict[str, float]) -> dict[str, str]:
    return {
        "PSNR": f"{measures['psnr_db']:.2f} dB",
        "PSNR in the brain": f"{measures['brain_psnr_db']:.2f} dB",
        "SSIM": f"{measures['ssim']:.4f}",
    }
