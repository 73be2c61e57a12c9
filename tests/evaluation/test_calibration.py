"""Calibration finds the prices behind measurements."""

import json
from pathlib import Path

import pytest
import torch

from nansparse.cli.main import main
from nansparse.engine import registry
from nansparse.evaluation import calibration
from nansparse.evaluation.calibration import (
    Measurement,
    fit_prices,
    layer_count,
    measure_layers,
    nonnegative_fit,
    prediction_error,
)
from nansparse.prices import read_prices
from nansparse.workload import AMOUNTS

CPU = torch.device("cpu")


def test_the_fit_finds_known_prices() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([3e-4, 5e-12, 2e-9, 0.0, 1e-10, 4e-9], dtype=torch.float64)
    size = torch.tensor([1, 1e9, 1e5, 1e6, 1e6, 1e5], dtype=torch.float64)
    amounts = torch.rand(60, len(AMOUNTS), generator=generator, dtype=torch.float64) * size
    amounts[:, 0] = 1
    measured = [Measurement("dense", 2, tuple(row.tolist()), float(row @ truth)) for row in amounts]
    prices = fit_prices(measured, CPU)
    torch.testing.assert_close(
        torch.tensor(prices.table["dense"]["2"], dtype=torch.float64), truth, rtol=0.02, atol=1e-12
    )
    assert prediction_error(prices, measured)["dense"] < 0.01


def test_prices_are_never_negative() -> None:
    columns = torch.tensor([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]], dtype=torch.float64)
    falling = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    fitted = nonnegative_fit(columns, falling)
    assert bool((fitted >= 0).all())
    assert float(fitted[1]) == 0.0
    assert float(fitted[0]) == pytest.approx(2.0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure two tiny layers only."""
    monkeypatch.setattr(calibration, "LAYERS", {2: ((4, 4, 9),), 3: ((4, 4, 6),)})
    monkeypatch.setattr(calibration, "REPEATS", 1)


@pytest.mark.usefixtures("small")
def test_every_engine_is_measured_in_two_and_three_dimensions() -> None:
    engines = [registry.get(name) for name in ("dense", "gather", "tile")]
    measured = list(measure_layers(engines, CPU))
    assert len(measured) == layer_count(CPU)
    seen = {(m.engine, m.rank) for some in measured for m in some}
    assert seen == {(name, rank) for name in ("dense", "gather", "tile") for rank in (2, 3)}


@pytest.mark.usefixtures("small")
def test_the_command_writes_prices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prices.json"
    assert main(["calibrate", "--threads", "1", "--output", str(path)]) == 0
    prices = read_prices(path.read_text())
    assert prices.has("gather", 3)
    assert "predictions are within" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["prices.json"]


def test_where_nothing_can_be_written_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "measure_layers", lambda *_: pytest.fail("it was measured first"))
    (tmp_path / ".cache").write_text("a file")
    assert main(["calibrate", "--output", str(tmp_path / "nowhere" / "prices.json")]) == 2
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert main(["calibrate"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 2


@pytest.mark.usefixtures("small")
def test_engines_can_be_chosen_and_dense_is_always_among_them(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    assert main(["calibrate", "--threads", "1", "--engines", "gather, gather", "--output", str(path)]) == 0
    assert set(read_prices(path.read_text()).table) == {"dense", "gather"}


@pytest.mark.parametrize("name", ["warp", "spconv-triton"])
def test_an_engine_that_cannot_be_measured_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--engines", name]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("device", ["tpu9", "cuda:77"])
def test_a_device_that_is_not_there_is_one_line(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--device", device]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_shipped_prices_are_json_of_today() -> None:
    path = Path(calibration.__file__).parents[1] / "default_prices" / "cpu.json"
    assert json.loads(path.read_text())["amounts"] == list(AMOUNTS)
