"""The benchmarks measure what they say, and what they wrote can be shown."""

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch

from benchmarks import overhead, pooling
from benchmarks.__main__ import BENCHMARKS
from benchmarks.__main__ import main as run_benchmarks
from nansparse.cli.main import main
from nansparse.cli.zoo import MODELS
from nansparse.errors import InputError
from nansparse.evaluation.conditions import fixed_conditions
from nansparse.evaluation.masks import nan_mask
from nansparse.evaluation.results import KINDS, Row, load_results
from nansparse.evaluation.timing import Timing

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def test_masks_have_the_share_asked_for():
    for shape in pooling.SHAPES:
        for ratio in (0.0, 0.3, 0.9):
            mask = nan_mask(shape, 1, (64, 64), ratio, torch.Generator().manual_seed(0))
            assert abs(mask.float().mean().item() - ratio) < 0.03, (shape, ratio)


def test_a_blob_is_compact_and_random_sites_are_not():
    generator = torch.Generator().manual_seed(0)
    edges = {}
    for shape in pooling.SHAPES:
        mask = nan_mask(shape, 1, (64, 64), 0.5, generator)[0, 0]
        edges[shape] = int((mask[1:] != mask[:-1]).sum())
    assert edges["blob"] * 5 < edges["sites"]


def test_conditions_are_put_back():
    before = torch.get_num_threads()
    with fixed_conditions(1):
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before


def test_pooling_is_timed_in_each_way(monkeypatch):
    monkeypatch.setitem(pooling.GEOMETRIES, "small", (2, (8, 8), 2, 2))
    rows = {row.way: row for row in pooling.measure_pooling("small", "sites", 0.5, repeats=2)}
    assert {"cells (torch)", pooling.DEFINITION} <= set(rows)
    for row in rows.values():
        assert len(row.timing["seconds"]) == 2
        assert row.values["speed_up"] == rows[pooling.DEFINITION].seconds / row.seconds


def test_every_command_writes_a_kind_that_the_schema_knows():
    text = (resources.files("nansparse.evaluation") / "results.schema.json").read_text()
    known = json.loads(text)["properties"]["kind"]["enum"]
    assert set(known) == set(KINDS) >= {*BENCHMARKS, *MODELS}


def benchmarked(monkeypatch, folder, measure):
    monkeypatch.setattr("sys.argv", ["benchmarks", "overhead", "--output", str(folder)])
    monkeypatch.setitem(BENCHMARKS, "overhead", measure)
    run_benchmarks()


def test_what_was_measured_before_an_interruption_is_kept(monkeypatch, tmp_path):
    def interrupted(results):
        results.rows.append(Row({"filters": 1}, "dense"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmarked(monkeypatch, tmp_path, interrupted)
    results = load_results(tmp_path / "overhead.json")
    assert (len(results.rows), results.complete) == (1, False)


def test_results_that_could_not_be_written_are_not_measured(monkeypatch, tmp_path):
    def refuse(document, name):
        raise InputError(f"{name} does not fit")

    def measure(results):
        pytest.fail("measured in vain")

    monkeypatch.setattr("benchmarks.__main__.check_document", refuse)
    with pytest.raises(InputError, match="overhead.json does not fit"):
        benchmarked(monkeypatch, tmp_path, measure)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trained-networks"], "run nansparse zoo train tissue --filters 71"),
        (["networks", "--case", "nothing"], "no case has 'nothing' in its name: FastSurferCNN"),
    ],
)
def test_what_is_missing_is_told_in_one_line(arguments, message, tmp_path):
    folder = str(tmp_path)
    command = [sys.executable, "-m", "benchmarks", *arguments, "--trained", folder, "--output", folder]
    done = subprocess.run(command, capture_output=True, text=True, cwd=RESULTS.parents[1], check=False)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_overhead_is_that_of_the_enabled_run(monkeypatch):
    slow = {"dense": Timing((1.0, 2.0, 3.0)), "enabled": Timing((2.0, 3.0, 9.0))}
    monkeypatch.setattr(overhead, "time_interleaved", lambda ways, repeats: slow)
    dense, enabled = overhead.measure_overhead(1, repeats=3)
    assert dense.way == "dense"
    assert enabled.values["overhead"] == 0.5


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_committed_file_can_be_shown(path, capsys):
    results = load_results(path)
    assert results.complete
    assert results.environment["denormals_flushed"]
    assert results.kind.split("-")[0] in path.stem
    assert main(["report", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("|") for line in lines) >= 2 + len({str(row.cell) for row in results.rows})
    assert path.with_suffix(".csv").exists()
