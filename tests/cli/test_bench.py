"""`nansparse bench` and `report`: resumable, whole files only, one line and exit code 2 for what is wrong."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from nansparse.activation import SparseActivation
from nansparse.cli.conclusion import conclude
from nansparse.cli.main import BAD_INPUT, main
from nansparse.evaluation import layers, progress
from nansparse.evaluation.environment import describe_environment
from nansparse.evaluation.results import Results, Row, load_results
from nansparse.evaluation.summary import tables
from nansparse.evaluation.timing import Timing
from nansparse.pool import RowPool

SMALL = [
    "--set",
    "size=8x8",
    "--set",
    "channels=2",
    "--set",
    "mask=sites",
    "--repeats",
    "2",
    "--threads",
    "1",
]
LAYERS = ["bench", "layers", *SMALL]


def bench(path, *words):
    return main([*LAYERS, "--set", "nan_ratio=0,0.5,0.9", "--output", str(path), *words])


def test_layers_are_measured_written_and_shown(tmp_path, capsys):
    assert bench(tmp_path / "new" / "r.json") == 0
    results = load_results(tmp_path / "new" / "r.json")
    assert results.complete
    assert {row.cell["nan_ratio"] for row in results.rows} == {0.0, 0.5, 0.9}
    for row in results.rows:
        assert row.timing is None or len(row.timing["seconds"]) == 2
    skipped = {r.cell["nan_ratio"]: r.values["windows_skipped"] for r in results.rows if r.way == "gather"}
    assert skipped[0.0] == 0 < skipped[0.5] < skipped[0.9]
    assert {"dense, NCHW", "dense, channels_last", "dense", "gather", "auto"} <= {
        row.way for row in results.rows
    }
    printed = capsys.readouterr().out
    assert "| gather" in printed
    names = {file.name for file in (tmp_path / "new").iterdir()}
    assert names == {"r.json", "r.csv", "r.png", "r.html"}


@pytest.mark.parametrize(("plan", "found"), [("new", 0), ("shared", 1)])
def test_a_shared_plan_is_found_and_a_new_one_is_made_in_every_call(monkeypatch, plan, found):
    held = []

    class Engine:
        def run(self, activation, convolution):
            held.append(len(activation.plans))
            activation.plans["made"] = True

    activation = SparseActivation.from_dense(torch.ones(1, 1, 2, 2))
    activation.plans["made"] = True
    monkeypatch.setattr(layers.registry, "get", lambda name: Engine())
    run = layers._sparse_way("gather", activation, None, RowPool(), plan=plan)
    for _ in range(3):
        run()
    assert held == [found] * 3


def test_crossovers_say_from_which_share_on_an_engine_wins():
    gains = {
        "gather": (0.5, 1.2, 0.9, 1.0, 2.0),
        "tile": (0.1, 0.2, 0.3, 0.4, 0.5),
        "auto": (1, 1.2, 1, 0.9, 3),
    }
    rows = []
    for i, ratio in enumerate((0.0, 0.2, 0.4, 0.6, 0.8)):
        cell = {"size": "8x8", "mask": "blob", "nan_ratio": ratio}
        rows.append(Row(cell, "dense, NCHW", timing=Timing((1.0, 1.0)).to_dict(), values={"speed_up": 1.0}))
        for way, speed in gains.items():
            values = {"speed_up": speed[i], "limit": 2.0, "windows_skipped": ratio}
            rows.append(Row(cell, way, timing=Timing((1.0, 1.0)).to_dict(), values=values))
    table = tables(Results("bench-layers", "", {}, {}, rows))[1]
    (line,) = table.lines
    assert line["gather"] == "60.0 %"
    assert line["tile"] == "never"
    assert line["auto"] == "80.0 %"
    assert line["auto, least"] == "0.90x at 60.0 %"
    assert "below 0.97x dense in 1 of 5 cells, at worst 0.90x" in table.note


def test_the_papers_trials_stand_beside_its_figures(tmp_path, capsys):
    few = ["--preset", "paper", "--set", "size=10x10,20x20", "--repeats", "2", "--threads", "1"]
    assert main(["bench", "layers", *few, "--engines", "auto", "--output", str(tmp_path / "r.json")]) == 0
    published = load_results(tmp_path / "r.json").analysis["published"]
    assert [entry["nan_ratio"] for entry in published] == [0.33, 0.5, 0.67, 0.75, 0.8, 0.9]
    assert (published[0]["published_low"], published[0]["published_high"]) == (0.68, 0.97)
    assert published[4]["published_low"] is None
    assert all(set(entry["ours"]) == {"10x10", "20x20"} for entry in published)
    assert "0.68-0.97x" in capsys.readouterr().out


def test_finished_cells_are_not_run_again(tmp_path):
    path = tmp_path / "r.json"
    assert bench(path) == 0
    before = load_results(path)
    assert main([*LAYERS, "--set", "nan_ratio=0,0.5,0.7,0.9", "--output", str(path)]) == 0
    after = load_results(path)
    assert [row for row in after.rows if row.cell["nan_ratio"] != 0.7] == before.rows
    assert {row.cell["nan_ratio"] for row in after.rows} == {0, 0.5, 0.7, 0.9}
    assert bench(path, "--overwrite") == 0
    assert not any(row in before.rows for row in load_results(path).rows if row.timing)


def test_a_smaller_grid_does_not_drop_what_is_measured(tmp_path, capsys):
    path = tmp_path / "r.json"
    assert bench(path) == 0
    before = path.read_text()
    capsys.readouterr()
    assert main([*LAYERS, "--set", "nan_ratio=0.5", "--output", str(path)]) == BAD_INPUT
    assert "2 finished cell(s)" in capsys.readouterr().err
    assert path.read_text() == before


def test_another_runs_file_is_not_mixed_in(tmp_path, capsys):
    path = tmp_path / "r.json"
    assert bench(path) == 0
    assert bench(path, "--repeats", "3") == BAD_INPUT
    assert "another run (repeats)" in capsys.readouterr().err
    document = json.loads(path.read_text())
    document["environment"]["torch"] = "1.0"
    path.write_text(json.dumps(document))
    assert bench(path) == BAD_INPUT
    assert "another run (torch)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_kill_loses_the_running_cell_only(tmp_path):
    path = tmp_path / "r.json"
    ratios = ",".join(str(i / 200) for i in range(200))
    words = [*LAYERS, "--set", f"nan_ratio={ratios}", "--output", str(path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "nansparse.cli.main", *words], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = load_results(path)
    finished = {row.cell["nan_ratio"] for row in left.rows}
    assert 0 < len(finished) < 200
    assert not left.complete
    some = sorted(finished)[-1]
    ratios = ",".join(map(str, [*sorted(finished), 0.999]))
    assert main([*LAYERS, "--set", f"nan_ratio={ratios}", "--output", str(path)]) == 0
    after = load_results(path)
    assert [r for r in after.rows if r.cell["nan_ratio"] == some] == [
        r for r in left.rows if r.cell["nan_ratio"] == some
    ]


BAD = {
    "preset": (["--preset", "slow"], "preset"),
    "missing grid": (["--sweep", "nowhere.toml"], "nowhere.toml"),
    "axis": (["--set", "colour=red"], "colour"),
    "value": (["--set", "nan_ratio=2"], "nan_ratio"),
    "no value": (["--set", "nan_ratio"], "axis=value"),
    "one repeat": (["--repeats", "1"], "repeats"),
    "engine": (["--engines", "warp"], "warp"),
    "output is a folder": (["--output", "r.json"], "r.json"),
    "output is no JSON": (["--output", "r.csv"], "r.csv"),
    "output in a device": (["--output", "/dev/null/r.json"], "/dev/null"),
    "output nowhere to be": (["--output", "/proc/r.json"], "/proc"),
    "kernel of other axes": (["--set", "kernel=3x3x3"], "kernel 3x3x3"),
    "kernel larger than the grid": (["--set", "size=2x2", "--set", "kernel=4"], "kernel"),
    "output is an endless device": (["--output", "endless.json"], "endless"),
}


@pytest.mark.parametrize(("words", "word"), BAD.values(), ids=BAD.keys())
def test_bad_input_gives_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, words, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.json").mkdir()
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    assert main(["bench", "layers", *words]) == BAD_INPUT
    printed = capsys.readouterr().err.strip()
    assert printed.count("\n") == 0
    assert printed.startswith("nansparse: ")
    assert word in printed
    assert {path.name for path in tmp_path.iterdir()} == {"r.json", "endless.json"}
    assert list((tmp_path / "r.json").iterdir()) == []


def fresh():
    return Results("bench-layers", "nansparse", describe_environment(), {})


def test_a_cell_that_raises_is_told_and_the_rest_is_run_and_it_is_tried_again(tmp_path):
    def measure(cell):
        if cell["n"] == 1 and not mended:
            raise RuntimeError("no such kernel\nand more")
        return [Row(cell, "auto")]

    mended = False
    cells = [{"n": n} for n in range(3)]
    results = fresh()
    (fault,) = progress.run_cells(results, cells, measure, tmp_path / "r.json", quiet=True)
    assert fault == "n=1: all: RuntimeError: no such kernel"
    assert tables(results)[-1].lines == [
        {"cell": "n=1", "run": "all", "fault": "RuntimeError: no such kernel"}
    ]
    assert [row.status for row in results.rows] == ["done", "failed", "done"]
    mended = True
    assert progress.run_cells(results, cells, measure, tmp_path / "r.json", quiet=True) == []
    assert len(results.rows) == 3


def test_a_full_disk_is_told_and_nothing_measured_is_lost(tmp_path, monkeypatch, capsys):
    full = True
    save = Results.save

    def sometimes(self, path):
        if full:
            raise OSError(28, "No space left on device", str(path))
        return save(self, path)

    monkeypatch.setattr(Results, "save", sometimes)
    results = fresh()
    seen = []

    def measure(cell):
        nonlocal full
        seen.append(cell)
        full = len(seen) < 3
        return [Row(cell, "auto")]

    assert (
        progress.run_cells(results, [{"n": n} for n in range(3)], measure, tmp_path / "r.json", quiet=True)
        == []
    )
    assert len(load_results(tmp_path / "r.json").rows) == 3
    full = True
    (fault,) = progress.run_cells(
        results, [{"n": 5}], lambda cell: [Row(cell, "a")], tmp_path / "s.json", quiet=True
    )
    assert fault.endswith("s.json could not be written: No space left on device")
    assert len(results.rows) == 1
    capsys.readouterr()
    assert conclude(results, tmp_path / "s.json", [fault]) == 1
    told = capsys.readouterr().err
    assert told.count("No space left") == 1
    assert not list(tmp_path.glob("s*json"))


def test_without_matplotlib_the_results_stand_and_the_remedy_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert bench(tmp_path / "r.json", "--engines", "gather") == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the plot could not be written: plots need matplotlib: pip install" in told
    assert load_results(tmp_path / "r.json").complete
    assert (tmp_path / "r.html").exists()


def test_without_jsonschema_nothing_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    monkeypatch.setattr(layers, "time_interleaved", None)
    assert bench(tmp_path / "r.json") == BAD_INPUT
    assert "jsonschema: pip install" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_report_shows_one_file_and_two(tmp_path, capsys):
    path = tmp_path / "r.json"
    assert bench(path) == 0
    capsys.readouterr()
    assert main(["report", str(path)]) == 0
    assert "Engines against dense" in capsys.readouterr().out
    assert main(["report", str(path), str(path), "--output", str(tmp_path / "two.html")]) == 0
    assert "too few samples" in capsys.readouterr().out
    assert "Times side by side" in (tmp_path / "two.html").read_text()


def test_report_refuses_what_is_no_results_file(tmp_path, capsys):
    path = tmp_path / "r.json"
    assert bench(path) == 0
    document = json.loads(path.read_text())
    (tmp_path / "v.json").write_text(json.dumps({**document, "version": 99}))
    (tmp_path / "k.json").write_text(json.dumps({**document, "kind": "compare"}))
    capsys.readouterr()
    for words in (
        ["v.json"],
        ["r.json", "k.json"],
        ["none.json"],
        ["r.json", "r.json", "--output", "no/x.html"],
        ["r.json", "--output", str(path)],
        ["/dev/zero"],
    ):
        full = [word if word.startswith("--") else str(tmp_path / word) for word in words]
        assert main(["report", *full]) == BAD_INPUT
        captured = capsys.readouterr()
        assert captured.err.strip().count("\n") == 0
        assert not captured.out
        assert json.loads(path.read_text()) == document


def test_report_tells_what_is_missing(tmp_path, capsys):
    path = tmp_path / "r.json"
    assert bench(path) == 0
    assert "incomplete" not in capsys.readouterr().out
    path.write_text(path.read_text().replace('"complete": true', '"complete": false'))
    assert main(["report", str(path)]) == 0
    assert "r.json is incomplete" in capsys.readouterr().out
