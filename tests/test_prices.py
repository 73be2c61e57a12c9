"""Prices: the file format, where it lies, and what happens to a bad file."""

import json
from pathlib import Path

import pytest
import torch

from nansparse.errors import InputError
from nansparse.prices import Prices, known_prices, prices_path, read_prices
from nansparse.workload import AMOUNTS, Workload

CPU = torch.device("cpu")
PRICES = Prices({"dense": {"2": (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)}}, "made up")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the process an empty home folder."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    known_prices.forget()
    yield tmp_path
    known_prices.forget()


def test_a_prediction_is_work_times_prices() -> None:
    work = Workload(macs=1, reads=10, cells=100, writes=1000, sites=10000)
    assert PRICES.seconds("dense", 2, work) == 1 + 2 + 30 + 400 + 5000 + 60000


def test_prices_survive_a_file() -> None:
    assert read_prices(json.dumps(PRICES.to_dict())) == PRICES


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        json.dumps(PRICES.to_dict() | {"format": 99}),
        json.dumps(PRICES.to_dict() | {"amounts": ["call"]}),
        json.dumps(PRICES.to_dict() | {"seconds": {"dense": {"2": [1.0]}}}),
        json.dumps(PRICES.to_dict() | {"seconds": {"dense": {"2": ["x"] * len(AMOUNTS)}}}),
        json.dumps(PRICES.to_dict() | {"seconds": {"dense": {"2": [float("nan")] * len(AMOUNTS)}}}),
        json.dumps(PRICES.to_dict() | {"seconds": {"dense": {"2": [float("inf")] * len(AMOUNTS)}}}),
        json.dumps(PRICES.to_dict() | {"seconds": {"dense": {"2": [-1.0] * len(AMOUNTS)}}}),
    ],
)
def test_a_bad_file_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(InputError, match="run `nansparse calibrate` again"):
        read_prices(text)


def test_without_a_file_the_shipped_prices_do(home: Path) -> None:
    prices = known_prices(CPU)
    assert all(prices.has(engine, rank) for engine in ("dense", "gather", "tile") for rank in (2, 3))


def test_the_machines_own_prices_win(home: Path) -> None:
    path = prices_path(CPU)
    assert path.is_relative_to(home)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(PRICES.to_dict()))
    assert known_prices(CPU) == PRICES


@pytest.mark.parametrize("torn", [b'{"format": 1', b"\x80\x81", b""])
def test_a_broken_file_does_not_stop_a_run(home: Path, torn: bytes) -> None:
    path = prices_path(CPU)
    path.parent.mkdir(parents=True)
    path.write_bytes(torn)
    assert known_prices(CPU).has("dense", 2)


def test_each_number_of_threads_has_its_file(home: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = prices_path(CPU)
        torch.set_num_threads(2)
        assert prices_path(CPU) != one
    finally:
        torch.set_num_threads(before)


def test_a_device_without_prices_has_none_and_says_how_to_get_them(home: Path) -> None:
    prices = known_prices(torch.device("meta"))
    assert not prices.table
    assert "nansparse calibrate --device meta" in prices.source
