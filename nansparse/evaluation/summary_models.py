"""Tables of `nansparse bench models`."""

from __future__ import annotations

from nansparse.evaluation.results import Results
from nansparse.evaluation.summary import Table, number, seconds, share, times, varying


def model_tables(results: Results) -> list[Table]:
    """Summarise a sweep of policies.

    Args:
        results: Of `nansparse bench models`.

    Returns:
        One line a setting, Pareto-optimal ones marked, and what is recommended.
    """
    axes = varying(results.rows)
    front = results.analysis.get("pareto", [])
    chosen = results.analysis.get("recommended", {})
    lines = []
    for row in results.rows:
        if not row.done or row.policy is None:
            continue
        line = {axis: str(row.cell[axis]) for axis in axes}
        line["time"] = seconds(row.timing)
        line["speed-up"] = times(row.values["speed_up"])
        line["windows skipped"] = share(row.values["windows_skipped"])
        line["MACs skipped"] = share(row.values["macs_skipped"])
        line |= {
            name: number(row.values[name])
            for name in ("dice_truth", "dice", "dice_inside_worst_label", "loss")
            if name in row.values
        }
        line["front"] = (
            "recommended" if row.cell == chosen.get("cell") else "yes" if row.cell in front else ""
        )
        lines.append(line)
    note = "front: no other setting is both faster and better. " + chosen.get("sentence", "")
    return [Table("Settings", note.strip(), lines), *_margin_tables(results)]


def _margin_tables(results: Results) -> list[Table]:
    """Say from which margin on a marked background costs nothing that matters, threshold by threshold."""
    margins = results.analysis.get("margins")
    if not margins:
        return []
    least = margins["least_dice"]
    lines = [
        {
            "mode": entry["mode"],
            "threshold": f"{entry['threshold']:g}",
            "smallest margin": "-" if entry["margin"] is None else str(entry["margin"]),
            "Dice inside": number(entry["dice_inside"]),
            "speed-up": times(entry["speed_up"]),
        }
        for entry in margins["smallest"]
    ]
    note = (
        f"The smallest margin with Dice >= {least:g} against the dense run, inside, for every label; Dice of "
        "the worst one and speed-up there."
    )
    return [Table("Margins", note, lines)]
