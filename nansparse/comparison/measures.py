"""How far a way agrees with the dense run and with the truth: the values and labels of its row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nansparse.comparison.collecting import CLASSIFICATION, REGRESSION, SEGMENTATION
from nansparse.evaluation.classes import compare_scores
from nansparse.evaluation.intensity import compare_images
from nansparse.evaluation.metrics import compare_labels, dice, disagreeing, mean_over_labels
from nansparse.evaluation.results import Row
from nansparse.prediction.grids import Prepared
from nansparse.record import RunRecord

# Measures against the truth bear this ending; the others are against the dense run.
TRUTH = "_truth"
# Dice with the dense run where the truth holds a label: what lies around the organ has no say.
INSIDE, WORST_INSIDE = "dice_inside", "dice_inside_worst_label"


@dataclass(frozen=True, eq=False)
class Measured:
    """What a way gave.

    Attributes:
        result: Labels, an image, or scores.
        records: What nansparse did.
    """

    result: Tensor
    records: list[RunRecord]


@dataclass(frozen=True, eq=False)
class Reference:
    """What ways are compared with.

    Attributes:
        dense: The result of the reference.
        visited: Bool (X, Y, Z): the voxels that were looked at; None for a classification.
        truth: What is right, or None.
        prepared: The image on the network's grid, with its affine and its size without padding.
        classes: How many classes the network has.
        names: What labels are called, where that is known.
        true_class: The right class of a classification, or None.
    """

    dense: Tensor
    visited: Tensor | None
    truth: Tensor | None
    prepared: Prepared
    classes: int
    names: dict[int, str]
    true_class: int | None = None

    @cached_property
    def true_labels(self) -> frozenset[int]:
        """The labels above 0 that the truth holds; looked up once for all ways."""
        return (
            frozenset()
            if self.truth is None
            else frozenset(int(label) for label in np.unique(self.truth.numpy()) if label > 0)
        )


def measure(row: Row, measured: Measured, reference: Reference, task: str, *, surfaces: bool) -> None:
    """Write what a way did and how it agrees into its row.

    Args:
        row: Takes values, labels and layers.
        measured: What the way gave.
        reference: What it is compared with.
        task: "segmentation", "regression" or "classification".
        surfaces: Whether distances between surfaces are measured.
    """
    _count_skips(row, measured.records)
    if task == CLASSIFICATION:
        right = reference.true_class
        truth = None if right is None else torch.full(measured.result.shape[:1], right)
        row.values |= compare_scores(measured.result, reference.dense, truth)
        return
    for ending, other in (("", reference.dense), (TRUTH, reference.truth)):
        if other is None:
            continue
        if task == REGRESSION:
            found = _compare_images(measured.result, other, reference)
        else:
            found = _compare_labels(row, measured.result, other, reference, ending, surfaces=surfaces)
        row.values |= {name + ending: value for name, value in found.items()}
    if task == SEGMENTATION and reference.truth is not None:
        _compare_inside(row, measured.result, reference)


def _count_skips(row: Row, records: list[RunRecord]) -> None:
    if not records:
        return
    for name in ("windows", "macs"):
        whole = sum(getattr(record, name) for record in records)
        skipped = sum(getattr(record, f"{name}_skipped") for record in records)
        row.values[f"{name}_skipped"] = skipped / whole if whole else 0.0
    row.values["densified"] = sum(record.densified for record in records)
    row.layers = [asdict(layer) for record in records for layer in record.layers]


def _inside(x: Tensor, reference: Reference) -> np.ndarray[Any, Any]:
    """Cut the padding off."""
    return x[tuple(slice(size) for size in reference.prepared.data.shape)].numpy()


def _compare_images(result: Tensor, other: Tensor, reference: Reference) -> dict[str, float]:
    return compare_images(_inside(result, reference), _inside(other, reference))


def _compare_labels(
    row: Row, result: Tensor, other: Tensor, reference: Reference, ending: str, *, surfaces: bool
) -> dict[str, float]:
    """Compare label by label: every class of the network but background, and what else the truth holds."""
    labels, expected = _inside(result, reference), _inside(other, reference)
    wanted = set(range(1, max(reference.classes, 2)))
    wanted |= reference.true_labels
    if surfaces:
        found = compare_labels(labels, expected, sorted(wanted), reference.prepared.affine)
    else:
        seen = _inside(reference.visited, reference) if reference.visited is not None else slice(None)
        labels, expected = labels[seen], expected[seen]
        found = {label: {"dice": value} for label, value in dice(labels, expected, sorted(wanted)).items()}
    for label, measures in found.items():
        named = row.labels.setdefault(reference.names.get(label, str(label)), {})
        named |= {name + ending: value for name, value in measures.items()}
    return {**mean_over_labels(found), "disagreeing_voxels": float(disagreeing(labels, expected))}


def _compare_inside(row: Row, result: Tensor, reference: Reference) -> None:
    """Compare with the dense labels where the truth holds any label, of the voxels that were looked at."""
    truth = reference.truth
    if truth is None or reference.visited is None:
        return
    inside = _inside((truth > 0) & reference.visited, reference)
    labels, expected = (_inside(x, reference)[inside] for x in (result, reference.dense))
    overlaps = dice(labels, expected, range(1, max(reference.classes, 2)))
    for label, value in overlaps.items():
        row.labels.setdefault(reference.names.get(label, str(label)), {})[INSIDE] = value
    row.values[INSIDE] = float(np.mean(list(overlaps.values())))
    row.values[WORST_INSIDE] = min(overlaps.values())
