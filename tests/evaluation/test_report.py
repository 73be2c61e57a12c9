"""The report in a real browser: opens from disk, sorts, shows its pictures, escapes what it is given."""

import re

import numpy as np
import pytest

from nansparse.errors import InputError
from nansparse.evaluation.environment import describe_environment
from nansparse.evaluation.layers import published_beside_ours
from nansparse.evaluation.plots import draw_plots
from nansparse.evaluation.report import write_report
from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.sides import side_by_side
from nansparse.evaluation.timing import Timing
from tests.evaluation.browser import opened

CELL = {"size": "8x8", "channels": "1", "kernel": "2", "mask": "sites", "threshold": 0.5}


def layer_results(factor=1.0, spread=0.01, n=8):
    """Times as of a benchmark: dense and 'auto' at three shares of NaN, 'auto' slower by a factor."""
    random = np.random.default_rng(0)
    rows = []
    for share, median in ((0.33, 900e-6), (0.5, 1.1e-3), (0.9, 0.2e-3)):
        cell = {**CELL, "nan_ratio": share}
        for way, middle in (("dense, NCHW", 1e-3), ("auto", factor * median)):
            timing = Timing(tuple(middle * random.lognormal(0, spread, n))).to_dict()
            values = {"speed_up": 1e-3 / middle}
            if way == "auto":
                values |= {"windows_skipped": share, "limit": 1 / (1 - share), "share_of_limit": 0.5}
            rows.append(Row(cell, way, timing=timing, values=values))
    rows.append(Row({**CELL, "nan_ratio": 1.0}, "auto", status="failed", fault="<b>bold & broken</b>"))
    results = Results("bench-layers", "nansparse bench", describe_environment(), {}, rows, complete=True)
    results.analysis["published"] = published_beside_ours(results)
    return results


def column(page, name):
    """Read a column of the first table that has it."""
    for table in re.findall(r"<table>.*?</table>", page, re.DOTALL):
        heads = [re.sub("<.*?>", "", head) for head in re.findall(r"<th.*?</th>", table)]
        if name in heads:
            rows = re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1], re.DOTALL)
            return [re.findall(r"<td>(.*?)</td>", row)[heads.index(name)] for row in rows]
    raise AssertionError(f"no column {name}")


def test_a_click_on_a_heading_sorts_and_another_turns_round(tmp_path, request):
    page = write_report([(tmp_path / "r.json", layer_results())], tmp_path / "r.html")
    click = "for (const b of document.querySelectorAll('button')) if (b.textContent === 'auto') {%s}"
    assert column(opened(page, request), "auto") == ["1.11x", "0.91x", "5.00x"]
    assert column(opened(page, request, click % "b.click()"), "auto") == ["0.91x", "1.11x", "5.00x"]
    assert column(opened(page, request, click % "b.click(); b.click()"), "auto") == [
        "5.00x",
        "1.11x",
        "0.91x",
    ]


def test_times_sort_by_their_unit_and_text_as_text(tmp_path, request):
    results = layer_results(spread=0.0)
    for row, median in zip(results.rows, (2e-3, 1, 980e-6, 1, 1.5, 1), strict=False):
        row.timing = Timing((median,)).to_dict()
    page = write_report([(tmp_path / "r.json", results)], tmp_path / "r.html")
    click = (
        "for (const b of document.querySelectorAll('button')) if (b.textContent === 'best dense') b.click()"
    )
    assert column(opened(page, request, click), "best dense") == ["980 us", "2 ms", "1.5 s"]


def test_plots_are_inside_and_nothing_is_loaded(tmp_path, request):
    results = layer_results()
    (plot,) = draw_plots(results, tmp_path / "r.json")
    page = write_report([(tmp_path / "r.json", results)], tmp_path / "r.html")
    plot.unlink()
    shown = "document.title = [...document.images].map(i => i.naturalWidth).join()"
    assert int(re.search("<title>(.*?)</title>", opened(page, request, shown))[1]) > 300
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "http" not in re.sub(r"http-equiv", "", text)
    # Even a script that tries gets nothing from outside, nor from the disk.
    tried = (
        "const i = new Image(); i.onerror = () => document.title = 'refused'; "
        "i.onload = () => document.title = 'loaded'; i.src = 'r.png'"
    )
    (tmp_path / "r.png").write_bytes(b"")
    assert "<title>refused</title>" in opened(page, request, tried)


def test_what_others_wrote_is_text(tmp_path, request):
    page = opened(write_report([(tmp_path / "r.json", layer_results())], tmp_path / "r.html"), request)
    assert "&lt;b&gt;bold &amp; broken&lt;/b&gt;" in page
    assert "<b>" not in page


def verdicts(a, b, tmp_path):
    times = side_by_side((tmp_path / "a.json", a), (tmp_path / "b.json", b))[0]
    return {(line["nan_ratio"], line["run"]): line["verdict"] for line in times.lines}


def test_a_slower_run_exceeds_the_noise_and_an_equal_one_does_not(tmp_path):
    slower = verdicts(layer_results(), layer_results(factor=1.2), tmp_path)
    assert {verdict for (_, run), verdict in slower.items() if run == "auto"} == {"B slower"}
    assert {verdict for (_, run), verdict in slower.items() if run != "auto"} == {"within noise"}
    assert set(verdicts(layer_results(), layer_results(), tmp_path).values()) == {"within noise"}
    noisy = verdicts(layer_results(spread=0.5), layer_results(factor=1.05, spread=0.5), tmp_path)
    assert set(noisy.values()) == {"within noise"}


def test_a_slow_machine_is_no_slow_engine(tmp_path):
    slow = layer_results(factor=1.2)
    for row in slow.rows:
        if row.timing and row.way.startswith("dense"):
            row.timing = Timing(tuple(1.25 * s for s in row.timing["seconds"])).to_dict()
    assert set(verdicts(layer_results(), slow, tmp_path).values()) == {"within noise"}


def test_turns_are_paired(tmp_path):
    # Turns differ far more among each other than between the runs: only pairs can tell.
    a, b = layer_results(), layer_results()
    for results, factor in ((a, 1.0), (b, 0.9)):
        for row in results.rows[1:2]:
            row.timing["parts"] = [factor * 2.0**i * (1 + 0.001 * i) for i in range(10)]
            row.timing["median"] = sum(row.timing["parts"])
    assert verdicts(a, b, tmp_path)["0.33", "auto"] == "B faster"


def test_too_few_samples_get_no_verdict(tmp_path):
    assert set(verdicts(layer_results(n=2), layer_results(n=2), tmp_path).values()) == {"too few samples"}


def test_measures_that_differ_are_listed(tmp_path):
    b = layer_results()
    b.rows[1].values["windows_skipped"] += 0.1
    tables = side_by_side((tmp_path / "a.json", layer_results()), (tmp_path / "b.json", b))
    (line,) = next(table.lines for table in tables if table.title == "Measures that differ")
    assert (line["measure"], line["B - A"]) == ("windows_skipped", "+0.1")


def test_runs_that_share_nothing_are_refused(tmp_path):
    other = layer_results()
    for row in other.rows:
        row.cell["size"] = "9x9"
    with pytest.raises(InputError, match="no cell in common"):
        side_by_side((tmp_path / "a.json", layer_results()), (tmp_path / "b.json", other))
    other.kind = "compare"
    with pytest.raises(InputError, match="cannot be compared"):
        side_by_side((tmp_path / "a.json", layer_results()), (tmp_path / "b.json", other))
