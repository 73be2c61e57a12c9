"""The demonstration: one volume, segmented dense and sparse side by side, compared voxel by voxel."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from nansparse.evaluation.conditions import fixed_conditions
from nansparse.evaluation.environment import describe_environment
from nansparse.evaluation.lineup import AGGRESSIVE, CHANNELS_LAST, CONSERVATIVE, DENSE, PLANE, set_up_ways
from nansparse.evaluation.metrics import dice, disagreeing
from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.runs import Way, take_turn, warm_up
from nansparse.evaluation.subject import Subject
from nansparse.evaluation.timing import Timing
from nansparse.imaging.conform import restore_labels
from nansparse.imaging.nifti import save_labels
from nansparse.imaging.slices import slabs, to_slices
from nansparse.imaging.template import TISSUES
from nansparse.imaging.volume import Voxels
from nansparse.policy import Policy

SLICES_PER_TURN = 8
TISSUE_NUMBERS = range(1, len(TISSUES))


@dataclass(frozen=True)
class Demonstration:
    """What was measured.

    Attributes:
        subject: What was segmented.
        policy: The options of the conservative run.
        ways: Every way, with its times, labels and record.
        first: Number of the first slice.
        environment: Software and processor.
        model: The network, for the pictures.
    """

    subject: Subject
    policy: Policy
    ways: list[Way]
    first: int
    environment: dict[str, Any]
    model: nn.Module

    def way(self, name: str) -> Way:
        """Find a way.

        Args:
            name: Its name.

        Returns:
            The way.
        """
        return next(way for way in self.ways if way.name == name)

    @property
    def best_dense(self) -> Way:
        """The faster of the two dense runs on the whole volume."""
        return min((self.way(DENSE), self.way(CHANNELS_LAST)), key=lambda way: way.total)

    def truth(self) -> Voxels | None:
        """Cut the true labels to the slices that were run.

        Returns:
            (slices, H, W), or None.
        """
        if self.subject.truth is None:
            return None
        return to_slices(self.subject.truth, PLANE)[self.first : self.first + len(self.ways[0].volume())]

    def results(self, command: str) -> Results:
        """Compare every way with the dense labels and the truth.

        Args:
            command: The command line.

        Returns:
            A row a way; labels are tissues.
        """
        dense, truth = self.way(DENSE).volume(), self.truth()
        settings = {
            "first_slice": self.first,
            "slices": len(dense),
            "best_dense": self.best_dense.name,
            "policy": self.policy.to_dict(),
        }
        rows = [self._row(way, dense, truth) for way in self.ways]
        return Results("demo", command, self.environment, settings, rows, complete=True)

    def _row(self, way: Way, dense: Voxels, truth: Voxels | None) -> Row:
        labels, record = way.volume(), way.record
        row = Row(
            {"volume": self.subject.name},
            way.name,
            policy=way.options,
            timing={**Timing((way.total,)).to_dict(), "parts": way.seconds},
        )
        row.values = {
            "speed_up": self.best_dense.total / way.total,
            "batch_size": float(way.batch_size),
            "disagreeing_voxels": float(disagreeing(labels, dense)),
        }
        if record is not None:
            row.values["windows_skipped"] = record.windows_skipped / record.windows
            row.values["macs_skipped"] = record.macs_skipped / record.macs
            row.values["densified"] = float(record.densified)
            row.layers = record.to_dict()["layers"]
        for name, other in (("dice", dense), ("dice_truth", truth)):
            if other is not None:
                for tissue, overlap in dice(labels, other, TISSUE_NUMBERS).items():
                    row.labels.setdefault(TISSUES[tissue], {})[name] = overlap
        return row

    def save_labels(self, folder: Path) -> list[Path]:
        """Write the label volumes of the dense, conservative and aggressive runs on the native grid.

        Args:
            folder: Where to.

        Returns:
            The files.
        """
        paths = []
        for name, short in ((DENSE, "dense"), (CONSERVATIVE, "conservative"), (AGGRESSIVE, "aggressive")):
            labels = np.zeros((256, 256, 256), dtype=np.uint8)
            chosen = self.way(name).volume()
            to_slices(labels, PLANE)[self.first : self.first + len(chosen)] = chosen
            path = folder / f"{self.subject.name}_{short}.nii.gz"
            save_labels(restore_labels(labels, self.subject.native), self.subject.native, path)
            paths.append(path)
        return paths


def demonstrate(
    model: nn.Module, subject: Subject, policy: Policy, *, threads: int, slices: int
) -> Demonstration:
    """Segment a volume in every way, side by side.

    Args:
        model: The network.
        subject: What to segment.
        policy: Options of the sparse runs; the mode is set here.
        threads: CPU threads.
        slices: How many of the middle slices.

    Returns:
        What was measured.
    """
    from tqdm import tqdm

    volume = subject.conformed.data
    depth = len(to_slices(volume, PLANE))
    count = min(slices, depth)
    first = (depth - count) // 2
    position = {"slice": first}
    with fixed_conditions(threads), ExitStack() as blocks:
        ways = set_up_ways(model, policy, volume, blocks, position)
        middle = list(range(depth // 2 - 2, depth // 2 + 2))
        position["slice"] = middle[0]
        warm_up(ways, slabs(volume, PLANE, middle))
        for way in ways:
            if way.record is not None:
                way.record.clear()
        starts = range(first, first + count, SLICES_PER_TURN)
        for turn, start in enumerate(tqdm(starts, desc="segmenting", unit=f"x{SLICES_PER_TURN} slices")):
            position["slice"] = start
            stop = min(start + SLICES_PER_TURN, first + count)
            take_turn(ways, slabs(volume, PLANE, range(start, stop)), turn)
        environment = describe_environment()
    return Demonstration(subject, policy, ways, first, environment, model)
