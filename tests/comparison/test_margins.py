"""The smallest margin: found per threshold, judged by the worst label, and drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nansparse.comparison.margins import smallest_margins
from nansparse.comparison.measures import Measured, Reference, measure
from nansparse.comparison.sweep import analyse
from nansparse.evaluation.plots import draw_plots, new_figure
from nansparse.evaluation.plots_margins import draw_margins
from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.summary_models import model_tables
from nansparse.imaging import Volume
from nansparse.prediction.grids import Prepared


def row(margin: str, threshold: float, worst: float, speed: float = 2.0, mode: str = "conservative") -> Row:
    cell = {"mode": mode, "threshold": threshold, "background": margin}
    values = {"dice_inside_worst_label": worst, "speed_up": speed, "dice": worst}
    values |= {"windows_skipped": 0.5, "macs_skipped": 0.5}
    return Row(cell, f"{mode} {margin}", policy={"mode": mode}, values=values)


def test_the_smallest_margin_holds_at_every_wider_one() -> None:
    # At 0.5 margin 0 passes by luck, and 1 does not: the smallest to rely on is 4.
    rows = [row("0", 0.5, 0.999), row("1", 0.5, 0.9), row("4", 0.5, 0.996, 3.0), row("10", 0.5, 1.0)]
    rows += [row("0", 1, 0.2), row("4", 1, 0.3), row("none", 1, 1.0)]
    found = smallest_margins(rows)
    assert found["least_dice"] == 0.995
    assert found["smallest"] == [
        {"mode": "conservative", "threshold": 0.5, "margin": 4, "dice_inside": 0.996, "speed_up": 3.0},
        {"mode": "conservative", "threshold": 1, "margin": None, "dice_inside": None, "speed_up": None},
    ]
    assert smallest_margins(rows, least=0.1)["smallest"][1]["margin"] == 0


def test_one_margin_is_no_sweep() -> None:
    assert smallest_margins([row("4", 0.5, 1.0), row("4", 1, 1.0), row("none", 1, 1.0)]) == {}
    assert smallest_margins([]) == {}


def test_dice_inside_leaves_out_what_lies_around() -> None:
    truth = torch.zeros(4, 4, 4, dtype=torch.int32)
    truth[1:3] = 1
    dense = torch.zeros_like(truth)
    dense[0:3] = 2  # also where the truth holds nothing
    dense[1] = 1
    found = dense.clone()
    found[0] = 0  # lost outside: no matter
    found[2, 0] = 1  # 4 of 16 voxels of label 2 inside became label 1
    prepared = Prepared(np.zeros((4, 4, 4)), np.eye(4), Volume(np.zeros((4, 4, 4)), np.eye(4)))
    reference = Reference(dense, torch.ones(4, 4, 4, dtype=torch.bool), truth, prepared, 3, {1: "grey"})
    result = Row({"volume": "v"}, "way")
    measure(result, Measured(found, []), reference, "segmentation", surfaces=False)
    one, two = 2 * 16 / (16 + 20), 2 * 12 / (16 + 12)
    assert result.labels["grey"]["dice_inside"] == pytest.approx(one)
    assert result.labels["2"]["dice_inside"] == pytest.approx(two)
    assert result.values["dice_inside"] == pytest.approx((one + two) / 2)
    assert result.values["dice_inside_worst_label"] == pytest.approx(two)
    assert result.labels["2"]["dice"] < two


def results_of(rows: list[Row]) -> Results:
    results = Results("bench-models", "nansparse bench models", {}, {}, rows=rows)
    results.analysis = analyse(results, "segmentation", 0.005)
    return results


def test_the_surface_is_told_and_drawn(tmp_path: Path) -> None:
    rows = [row(m, t, 0.99 + int(m) / 1000) for m in ("0", "4", "6") for t in (0.25, 1.0)]
    dense = [Row(one.cell, "dense, NCHW", values={"dice": 1.0, "speed_up": 1.0}) for one in rows]
    results = results_of([*dense, *rows])
    (margins,) = [table for table in model_tables(results_timed(results)) if table.title == "Margins"]
    assert [line["smallest margin"] for line in margins.lines] == ["6", "6"]
    drawn = draw_plots(results, tmp_path / "surface.json")
    assert [path.name for path in drawn] == ["surface.png", "surface_margins.png"]
    assert drawn[1].stat().st_size > 5000


def test_a_label_that_is_lost_is_drawn_as_zero(tmp_path: Path) -> None:
    figure = new_figure()
    lost = {0.25: 0.0, 1.0: 0.999}
    rows = [row(m, t, lost[t]) for m in ("0", "4") for t in lost]
    dense = [Row(one.cell, "dense, NCHW", values={"dice": 1.0, "speed_up": 1.0}) for one in rows]
    assert draw_margins(results_of([*dense, *rows]), figure)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(texts) == ["0.0000", "0.0000", "0.9990", "0.9990"]


def results_timed(results: Results) -> Results:
    for one in results.rows:
        one.timing = {"seconds": [1.0], "calls": 1, "median": 1.0, "quartiles": [1.0, 1.0]}
    return results


def test_a_sweep_without_margins_has_no_surface(tmp_path: Path) -> None:
    results = results_of([row("none", t, 1.0) for t in (0.25, 1.0)])
    assert "margins" not in results.analysis
    assert [table.title for table in model_tables(results_timed(results))] == ["Settings"]
    assert not [path for path in draw_plots(results, tmp_path / "s.json") if "margins" in path.name]
