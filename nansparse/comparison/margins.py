"""How wide a rim of background must stay: the smallest margin at which marking costs nothing that matters.

Judged inside the organ, label by label: what lies around it is labelled background by definition once it is
skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nansparse.comparison.measures import WORST_INSIDE
from nansparse.evaluation.axes import NO_BACKGROUND
from nansparse.evaluation.results import Row

# Dice with the dense labels that every label keeps.
LEAST_DICE = 0.995


def smallest_margins(rows: Sequence[Row], least: float = LEAST_DICE) -> dict[str, Any]:
    """Find the smallest margin that is good enough, for each mode and threshold.

    Args:
        rows: Finished ones of a sweep over margins.
        least: Dice inside, against the dense run, that the worst label must keep; at every wider margin that
            was run, too.

    Returns:
        "least_dice" and "smallest", one entry a mode and threshold: "margin" (None if none is good enough),
        "dice_inside" (of the worst label) and "speed_up" there. Empty where no two margins were run.
    """
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        if row.cell["background"] != NO_BACKGROUND and row.values.get(WORST_INSIDE) is not None:
            groups.setdefault((row.cell["mode"], row.cell["threshold"]), []).append(row)
    if not any(len({row.cell["background"] for row in group}) > 1 for group in groups.values()):
        return {}
    return {
        "least_dice": least,
        "smallest": [
            {"mode": mode, "threshold": threshold, **_smallest(group, least)}
            for (mode, threshold), group in groups.items()
        ],
    }


def _smallest(rows: Sequence[Row], least: float) -> dict[str, Any]:
    chosen: Row | None = None
    for row in sorted(rows, key=lambda row: -int(row.cell["background"])):
        if (row.values[WORST_INSIDE] or 0.0) < least:
            break
        chosen = row
    if chosen is None:
        return {"margin": None, "dice_inside": None, "speed_up": None}
    return {
        "margin": int(chosen.cell["background"]),
        "dice_inside": chosen.values[WORST_INSIDE],
        "speed_up": chosen.values.get("speed_up"),
    }
