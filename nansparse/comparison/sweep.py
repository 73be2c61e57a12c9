"""One setting of a sweep: a policy beside the dense runs; and what all settings together say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nansparse.comparison.analysis import add_losses, pareto_front, recommend
from nansparse.comparison.cases import Case
from nansparse.comparison.margins import smallest_margins
from nansparse.comparison.volume import Comparison, compare_case
from nansparse.comparison.ways import WayPlan, policy_name
from nansparse.evaluation.axes import NO_BACKGROUND
from nansparse.evaluation.results import Cell, Results, Row


def measure_setting(comparison: Comparison, case: Case, cell: Cell) -> list[Row]:
    """Run one setting beside the dense runs, interleaved, so that each cell has its own comparison.

    Args:
        comparison: What is done; its plans are the dense runs.
        case: The volume.
        cell: A value for every axis of `MODEL_AXES`.

    Returns:
        The rows of the dense runs and of the policy.
    """
    options = {name: cell[name] for name in ("mode", "threshold", "epsilon", "max_ties", "engine")}
    margin = None if cell["background"] == NO_BACKGROUND else int(cell["background"])
    name = policy_name(options) + ("" if margin is None else f", background NaN, margin {margin}")
    plan = WayPlan(name, policy=options, margin=margin)
    recipe = replace(comparison.recipe, threads=int(cell["threads"]))
    return compare_case(replace(comparison, recipe=recipe, plans=[*comparison.plans, plan]), case, cell)


def analyse(results: Results, task: str, most: float) -> dict[str, Any]:
    """Find the Pareto front, and the setting to recommend.

    Args:
        results: Of the sweep; its rows get "loss".
        task: "segmentation", "regression" or "classification".
        most: The largest loss accepted of the recommended setting.

    Returns:
        "pareto" (cells), "recommended" and "accepted_loss"; where margins were swept, "margins".
    """
    dense = next((row.way for row in results.rows if row.policy is None), "")
    add_losses(results.rows, dense, task)
    rows = [row for row in results.rows if row.done and row.policy is not None and "loss" in row.values]
    front = pareto_front(rows)
    margins = smallest_margins(rows)
    return {
        "pareto": [row.cell for row in front],
        "recommended": recommend(front, most),
        "accepted_loss": most,
        **({"margins": margins} if margins else {}),
    }
