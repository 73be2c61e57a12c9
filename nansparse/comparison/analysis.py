"""What the rows of a comparison or a sweep add up to: equivalence, Pareto front, one setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nansparse.comparison.collecting import CLASSIFICATION, REGRESSION
from nansparse.comparison.measures import TRUTH
from nansparse.evaluation.equivalence import judge_equivalence
from nansparse.evaluation.results import Results, Row

MEAN = "mean over labels"
# What equivalence and loss are judged by; all are 1 where two runs agree in everything.
PRIMARY = {CLASSIFICATION: "agreement", REGRESSION: "ssim"}
DICE = "dice"


def by_way(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group finished rows by their way.

    Args:
        rows: Of a comparison.

    Returns:
        Way to its rows, in the order in which ways first came.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.done:
            groups.setdefault(row.way, []).append(row)
    return groups


def judged_measure(rows: Sequence[Row], task: str) -> tuple[str, bool]:
    """Choose the measure by which ways are judged.

    Args:
        rows: Finished ones.
        task: Of the comparison.

    Returns:
        Its name, and whether it is one against the truth: then a way is judged by its difference to the dense
        run, else by its distance from full agreement with the dense run.
    """
    if task == CLASSIFICATION and all("accuracy" in row.values for row in rows):
        return "accuracy", True
    name = PRIMARY.get(task, DICE)
    truth = bool(rows) and all(name + TRUTH in row.values for row in rows)
    return (name + TRUTH, True) if truth else (name, False)


def equivalence(results: Results, reference: str, task: str, margin: float) -> list[dict[str, Any]]:
    """Test every way for equivalence with the dense run, over the volumes.

    Args:
        results: Of `nansparse compare`.
        reference: Name of the dense run.
        task: "segmentation", "regression" or "classification".
        margin: Largest difference that counts as none.

    Returns:
        One entry a way and label: "way", "label" (the mean over labels has its own entry, tested by itself;
        labels are corrected together), "measure", and what `Equivalence.to_dict` gives.
    """
    groups = by_way(results.rows)
    name, against_truth = judged_measure([row for rows in groups.values() for row in rows], task)
    dense = {row.cell["volume"]: row for row in groups.get(reference, [])}
    entries = []
    for way, rows in groups.items():
        paired = [(row, dense[row.cell["volume"]]) for row in rows if row.cell["volume"] in dense]
        if way == reference or not paired:
            continue
        whole = {MEAN: [_difference(a.values, b.values, name, against_truth) for a, b in paired]}
        labels = list(dict.fromkeys(label for row, _ in paired for label in row.labels))
        single = {
            label: [
                _difference(a.labels.get(label, {}), b.labels.get(label, {}), name, against_truth)
                for a, b in paired
                if label in a.labels
            ]
            for label in labels
        }
        found = {**judge_equivalence(whole, margin), **judge_equivalence(single, margin)}
        entries += [{"way": way, "label": k, "measure": name, **v.to_dict()} for k, v in found.items()]
    return entries


def _difference(own: dict[str, Any], dense: dict[str, Any], name: str, against_truth: bool) -> float:
    value = own.get(name)
    expected = dense.get(name) if against_truth else 1.0
    # By the rule of the measures nothing is missing; an unknown label agrees with itself.
    return 0.0 if value is None or expected is None else float(value) - float(expected)


def add_losses(rows: Sequence[Row], reference: str, task: str) -> None:
    """Write how much worse each way is than the dense run of the same cell, as "loss".

    Args:
        rows: Of a sweep.
        reference: Name of the dense run.
        task: Of the sweep.
    """
    name, against_truth = judged_measure([row for row in rows if row.done], task)
    dense = {repr(row.cell): row for row in rows if row.done and row.way == reference}
    for row in rows:
        other = dense.get(repr(row.cell))
        if row.done and other is not None:
            row.values["loss"] = -_difference(row.values, other.values, name, against_truth)


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """Find the settings that no other setting beats in both speed and loss.

    Args:
        rows: With "speed_up" and "loss".

    Returns:
        The front, fastest first; of equal settings all are in it.
    """

    def point(row: Row) -> tuple[float, float]:
        return row.values["speed_up"] or 0.0, row.values["loss"] or 0.0

    front = []
    for row in rows:
        speed, loss = point(row)
        beaten = any(
            s >= speed and worse <= loss and (s > speed or worse < loss) for s, worse in map(point, rows)
        )
        if not beaten:
            front.append(row)
    return sorted(front, key=point, reverse=True)


def recommend(rows: Sequence[Row], most: float) -> dict[str, Any]:
    """Recommend the fastest setting within a loss.

    Args:
        rows: Policies with "speed_up" and "loss".
        most: The largest loss accepted.

    Returns:
        "cell" (None for dense), "way" and "sentence".
    """
    good = [
        row for row in rows if (row.values["loss"] or 0.0) <= most and (row.values["speed_up"] or 0.0) > 1
    ]
    if not good:
        sentence = f"Recommended within a loss of {most:.2%}: dense; no setting is faster and as good."
        return {"cell": None, "way": None, "sentence": sentence}
    best = max(good, key=lambda row: row.values["speed_up"] or 0.0)
    gain, loss = best.values["speed_up"] or 0.0, best.values["loss"] or 0.0
    sentence = f"Recommended within a loss of {most:.2%}: {best.way} ({gain:.2f}x dense, loss {loss:.2%})."
    return {"cell": best.cell, "way": best.way, "sentence": sentence}
