"""`nansparse predict`: segment one or many volumes with any network, sparse, and dense beside it if asked."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nansparse.background import USUAL_MARGIN
from nansparse.cli.options import add_policy, positive, real
from nansparse.cli.progress import progress_bar
from nansparse.errors import InputError, NansparseError
from nansparse.memory import keep_memory

if TYPE_CHECKING:
    from nansparse.prediction import Job, Outcome, Recipe


class VolumesFailedError(NansparseError):
    """Some volumes could not be segmented; each was named when it failed."""


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: The subparsers of `nansparse`.
    """
    parser = commands.add_parser(
        "predict",
        help="segment NIfTI or MGZ volumes with a network of yours",
        description="Segments volumes: brings each to the network's grid, runs the network sparse, and "
        "writes labels on the volume's own grid with its affine and header. See docs/predict.md.",
    )
    parser.add_argument("images", nargs="+", type=Path, help="NIfTI or MGZ files, and folders of them")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="folder for NAME_labels files; or, for one image, a file",
    )
    parser.add_argument("--overwrite", action="store_true", help="do finished volumes again")
    parser.add_argument("--probabilities", action="store_true", help="write NAME_probabilities (4D) too")
    parser.add_argument(
        "--compare", action="store_true", help="run dense beside it: Dice per label, and time"
    )
    parser.add_argument("--report", type=Path, help="write what became of every volume to this JSON file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_network(parser)
    add_grid(parser)
    _add_marking(parser)
    _add_machine(parser)
    add_policy(parser)
    parser.set_defaults(run=run)


def add_network(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options that name networks and say how they look at a volume.

    Args:
        parser: Of a command.
        required: Whether a model must be named.
    """
    group = parser.add_argument_group("network")
    group.add_argument(
        "--model", action="append", required=required, metavar="[PLANE=]MODEL",
        help="package.module:factory, a name of nansparse.zoo ('tissue', 'FastSurferVINN', ...), or the "
        "folder of a MONAI bundle; repeat with PLANE= for one network a plane",
    )  # fmt: skip
    group.add_argument(
        "--model-args", action="append", default=[], metavar="[PLANE=]JSON",
        help="keyword arguments of the factory, such as '{\"num_classes\": 79}'",
    )  # fmt: skip
    group.add_argument(
        "--weights", action="append", default=[], metavar="[PLANE=]FILE",
        help=".safetensors, or .pt, .pth, .pkl (read without running code)",
    )  # fmt: skip
    group.add_argument(
        "--planes", nargs="+", metavar="PLANE",
        help="2D networks: coronal, axial, sagittal; by default those named above, else coronal",
    )  # fmt: skip
    group.add_argument(
        "--view-weights", nargs="+", type=real, metavar="W",
        help="one number a plane; FastSurfer's by default (coronal 0.4, axial 0.4, sagittal 0.2)",
    )  # fmt: skip
    group.add_argument(
        "--class-map", action="append", default=[], metavar="PLANE=FILE",
        help="for each class of the result, the class of this plane's network: a JSON list, or 'fastsurfer'",
    )  # fmt: skip
    group.add_argument(
        "--label-values", metavar="FILE",
        help="the number to write for each class: a JSON list, or 'fastsurfer' for FreeSurfer's numbers",
    )  # fmt: skip
    group.add_argument(
        "--activation", choices=("softmax", "sigmoid", "none"), default="softmax",
        help="from the network's output to probabilities ('none': they are); one channel takes sigmoid",
    )  # fmt: skip
    group.add_argument("--thickness", type=positive, help="slices per input; the first convolution says it")
    group.add_argument("--batch-size", type=positive, default=4, help="slices per call of a 2D network")


def add_grid(parser: argparse.ArgumentParser) -> None:
    """Add the options of the grid that networks see, and of windows.

    Args:
        parser: Of a command.
    """
    group = parser.add_argument_group("grid and windows")
    group.add_argument(
        "--grid", choices=("conformed", "native"),
        help="'conformed' (256 voxels of 1 mm, LIA; the default of 2D networks) or 'native' (of 3D ones); a "
        "bundle prepares images itself",
    )  # fmt: skip
    group.add_argument(
        "--orientation", default="", help="of a native grid, such as RAS; the file's by default"
    )
    group.add_argument(
        "--spacing", type=real, nargs="+", metavar="MM", help="of a native grid; one number or three"
    )
    group.add_argument(
        "--intensity", choices=("unit", "zscore", "none"), default="unit",
        help="on a native grid: 0 to 1 (99.9th percentile), mean 0 and deviation 1 over nonzero voxels, or "
        "as it is",
    )  # fmt: skip
    group.add_argument(
        "--window", nargs="+", metavar="N",
        help="3D networks: one number or three, or 'whole'; 96 (a bundle's own) by default",
    )  # fmt: skip
    group.add_argument(
        "--overlap", type=real, default=0.5, help="share of a window its neighbour covers, [0, 1)"
    )
    group.add_argument(
        "--blend", choices=("gaussian", "constant"), default="gaussian", help="weights within a window"
    )
    group.add_argument("--multiple", type=positive, default=16, help="pad sides to a multiple of this")


def _add_marking(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("background")
    group.add_argument(
        "--background", action="store_true", help="mark constant background at the border as NaN"
    )
    group.add_argument(
        "--background-value", type=real, default=0.0, help="its intensity on the network's grid"
    )
    group.add_argument(
        "--margin",
        type=int,
        default=USUAL_MARGIN,
        help=f"background voxels that stay around the rest ({USUAL_MARGIN})",
    )
    group.add_argument(
        "--mask",
        type=Path,
        help="instead: mark what this mask leaves out; a folder holds one of each image's name",
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    group.add_argument("--workers", type=positive, default=1, help="volumes at the same time, a process each")
    group.add_argument(
        "--threads", type=positive, help="CPU threads a worker; by default the cores shared out"
    )
    group.add_argument(
        "--dask", metavar="ADDRESS", help="run on a Dask cluster: tcp://host:8786, or a scheduler file"
    )


def run(options: argparse.Namespace) -> None:
    """Segment.

    Args:
        options: Parsed arguments.

    Raises:
        InputError: If the report cannot be written.
        VolumesFailedError: If a volume failed; the others are done.
    """
    from nansparse.cli.outcomes import tell, write_report
    from nansparse.cli.recipes import recipe_of
    from nansparse.prediction.jobs import plan_jobs
    from nansparse.prediction.outcomes import FAILED
    from nansparse.prediction.workers import open_jobs

    recipe = recipe_of(options)
    jobs = plan_jobs(options.images, options.output, probabilities=options.probabilities)
    if options.report is not None and not options.report.parent.is_dir():
        raise InputError(f"cannot write {options.report}: its folder does not exist")
    outcomes, left = open_jobs(jobs, overwrite=options.overwrite)
    for outcome in outcomes:
        print(f"{outcome.job.image}: {outcome.job.labels} is there already (--overwrite does it again)")
    for outcome in _outcomes(recipe, left, options):
        outcomes.append(outcome)
        tell(outcome, alone=len(jobs) == 1)
    if options.report is not None:
        write_report(options.report, recipe, outcomes)
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    if failed and len(jobs) == 1:
        raise VolumesFailedError(failed[0].reason)
    if failed:
        raise VolumesFailedError(f"{len(failed)} of {len(jobs)} volumes failed; the others are done")


def _outcomes(recipe: Recipe, jobs: list[Job], options: argparse.Namespace) -> Iterator[Outcome]:
    """Do the volumes where the user asked for: here, in worker processes, or on a cluster."""
    from nansparse.prediction import load_networks, predict_many, predict_on_cluster
    from nansparse.prediction.cluster import connect
    from nansparse.prediction.outcomes import attempt

    if not jobs:
        return
    keep_memory()
    # Also where others load them again: a network that will not do is told once, before anything starts.
    networks = load_networks(recipe)
    if options.dask is not None:
        with connect(options.dask) as client:
            yield from _counted(predict_on_cluster(recipe, jobs, client), len(jobs), options)
    elif min(options.workers, len(jobs)) > 1:
        yield from _counted(predict_many(recipe, jobs, workers=options.workers), len(jobs), options)
    else:
        for job in jobs:
            with progress_bar(job.image.name, quiet=options.quiet) as tick:
                outcome = attempt(recipe, networks, job, tick)
            yield outcome


def _counted(outcomes: Iterator[Outcome], total: int, options: argparse.Namespace) -> Iterator[Outcome]:
    """Show how many volumes are done."""
    with progress_bar("volumes", quiet=options.quiet) as tick:
        for number, outcome in enumerate(outcomes, start=1):
            tick(number, total)
            yield outcome
