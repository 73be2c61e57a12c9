"""Telling what became of each volume: lines for the user, and a report for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nansparse.prediction import Outcome, Recipe


def tell(outcome: Outcome, *, alone: bool) -> None:
    """Say what became of a volume, and what the run advises.

    Args:
        outcome: What became of it.
        alone: Whether it is the only volume; its failure is then the command's, which tells it.
    """
    if outcome.status != "done":
        if not alone:
            print(f"nansparse: {outcome.job.image}: {outcome.reason}", file=sys.stderr)
        return
    facts = outcome.facts
    line = (
        f"{outcome.job.image}: wrote {outcome.job.labels} in {facts['seconds']:.1f} s, "
        f"{100 * facts['macs_skipped']:.1f} % of the multiply-adds skipped"
    )
    peak = facts["peak_memory_mib"]
    print(line if peak is None else f"{line}, {peak:.0f} MiB at the peak")
    if "dice" in facts:
        print(
            f"  network {facts['network_seconds']:.1f} s, dense {facts['dense_seconds']:.1f} s "
            f"({facts['speed_up']:.2f}x); {facts['disagreeing_voxels']} voxels differ"
        )
        scores = ", ".join(f"{label}: {value:.4f}" for label, value in facts["dice"].items())
        print(f"  Dice with dense by label: {scores or 'no label above 0'}")
    for sentence in facts["advice"]:
        print(f"  {sentence}")


def write_report(path: Path, recipe: Recipe, outcomes: list[Outcome]) -> None:
    """Write what became of every volume.

    Args:
        path: The JSON file.
        recipe: What was done.
        outcomes: What became of the volumes.
    """
    from nansparse.evaluation.conditions import fixed_conditions
    from nansparse.evaluation.environment import describe_environment
    from nansparse.imaging.atomic import whole_file

    with fixed_conditions(recipe.threads):  # those of the runs
        environment = describe_environment()
    report = {
        "environment": environment,
        "recipe": recipe.to_dict(),
        "volumes": [outcome.to_dict() for outcome in outcomes],
    }
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(report, indent=1) + "\n")
