"""The scores of `nansparse zoo score` as the rows of a results file."""

from __future__ import annotations

from typing import Any

from nansparse.evaluation.results import Row

Scores = dict[str, Any]


def score_rows(model: str, scores: Scores) -> list[Row]:
    """Turn scores into rows.

    Args:
        model: "tissue", "unet", "digits" or "denoiser".
        scores: What scoring that model gave.

    Returns:
        One row a run.
    """
    return {"tissue": _tissue, "unet": _tissue, "digits": _digits, "denoiser": _denoiser}[model](scores)


def _tissue(scores: Scores) -> list[Row]:
    values: dict[str, float | None] = {"outside": float(scores["outside"])}
    values |= {f"dice_{tissue}": value for tissue, value in scores["dice"].items()}
    return [Row({"slices": scores["slices"]}, "dense", values=values)]


def _digits(scores: Scores) -> list[Row]:
    low, high = scores["accuracy_interval"]
    values = {"accuracy": scores["accuracy"], "accuracy_low": low, "accuracy_high": high}
    rows = [Row({"order": "either", "max_ties": "-", "threshold": "-"}, "dense", values=values)]
    for run in scores["runs"]:
        order = "pool, rectify" if run["pool_first"] else "rectify, pool"
        cell = {"order": order, "max_ties": run["max_ties"], "threshold": run["threshold"]}
        low, high = run["loss_interval"]
        values = {"accuracy": run["accuracy"], "loss": run["loss"], "loss_low": low, "loss_high": high}
        values |= {f"{layer}_skipped": share for layer, share in run["skipped"].items()}
        policy = {"mode": "aggressive", "max_ties": run["max_ties"], "threshold": run["threshold"]}
        rows.append(Row(cell, "aggressive", policy=policy, values=values))
    return rows


def _denoiser(scores: Scores) -> list[Row]:
    rows = []
    for level in scores["levels"]:
        cell = {"noise": level["level"], "background": "noise", "slices": scores["slices"]}
        for key, way in (("noisy", "no filter"), ("gaussian", "Gaussian"), ("denoiser", "denoiser")):
            width = {"width_voxels": level["width_voxels"]} if key == "gaussian" else {}
            rows.append(Row(cell, way, values={**level[key], **width}))
    for run in scores["runs"]:
        cell = {
            "noise": scores["swept_level"],
            "background": run["background"],
            "slices": scores["swept_slices"],
        }
        policy = {name: run[name] for name in ("mode", "threshold")}
        values = {
            name: value for name, value in run.items() if name not in ("background", "mode", "threshold")
        }
        way = f"denoiser, {run['mode']} {run['threshold']:g}"
        rows.append(Row(cell, way, policy=policy, values=values))
    return rows
