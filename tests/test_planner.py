"""The planner takes the engine with the least predicted time, and dense where two are alike."""

import pytest
import torch

import nansparse
from nansparse.activation import SparseActivation
from nansparse.compiled import kernels_problem
from nansparse.convolution import Convolution
from nansparse.engine import Registry
from nansparse.errors import EngineError
from nansparse.plan import plan_windows
from nansparse.planner import choose_engine
from nansparse.prices import Prices
from nansparse.windows import convolution_windows
from nansparse.workload import AMOUNTS

PER_CALL = (1.0,) + (0.0,) * (len(AMOUNTS) - 1)


def flat(**seconds: float) -> Prices:
    """Price calls only."""
    table = {name: {"2": tuple(s * p for p in PER_CALL)} for name, s in seconds.items()}
    return Prices(table, "made up")


def layer(groups: int = 1) -> tuple[SparseActivation, Convolution]:
    x = torch.rand(1, 4, 8, 8)
    x[..., :5] = torch.nan
    windows = convolution_windows((8, 8), 3, padding=1)
    weight = torch.rand(4, 4 // groups, 3, 3)
    return SparseActivation.from_dense(x), Convolution(weight, None, windows, groups, 0.5)


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (flat(dense=2.0, gather=1.0, tile=3.0), "gather"),
        (flat(dense=2.0, gather=3.0, tile=1.0), "tile"),
        (flat(dense=1.0, gather=2.0, tile=3.0), "dense"),
        (flat(dense=1.0, gather=1.0, tile=1.0), "dense"),
        (flat(dense=2.0), "dense"),
        (flat(), "dense"),
    ],
)
def test_auto_takes_the_least_predicted_time(prices: Prices, expected: str) -> None:
    choice = choose_engine(nansparse.registry, "auto", *layer(), prices)
    assert choice.engines[0].name == expected
    assert "dense" in [engine.name for engine in choice.engines]


@pytest.mark.parametrize("marked", ["no cell", "one cell", "one site"])
def test_where_nothing_is_marked_auto_takes_dense_unless_another_is_surely_faster(marked: str) -> None:
    x = torch.rand(1, 4, 8, 8)
    if marked != "no cell":
        x[:, : 1 if marked == "one cell" else 4, 3, 3] = torch.nan
    _, convolution = layer()
    prices = flat(dense=9.0, gather=8.0)
    choice = choose_engine(nansparse.registry, "auto", SparseActivation.from_dense(x), convolution, prices)
    assert choice.engines[0].name == ("dense" if marked == "no cell" else "gather")
    prices = flat(dense=9.0, gather=6.0)
    choice = choose_engine(nansparse.registry, "auto", SparseActivation.from_dense(x), convolution, prices)
    assert choice.engines[0].name == "gather"
    prices = flat(dense=10.0, gather=8.0)
    choice = choose_engine(nansparse.registry, "auto", SparseActivation.from_dense(x), convolution, prices)
    assert choice.engines[0].name == ("dense" if marked == "no cell" else "gather")
    prices = flat(gather=0.1)
    choice = choose_engine(nansparse.registry, "auto", SparseActivation.from_dense(x), convolution, prices)
    assert choice.engines[0].name == ("dense" if marked == "no cell" else "gather")
    unpriced = Prices({}, "none")
    choice = choose_engine(nansparse.registry, "auto", SparseActivation.from_dense(x), convolution, unpriced)
    assert choice.engines[0].name == "dense"


def test_an_engine_without_prices_is_never_chosen_by_auto() -> None:
    choice = choose_engine(nansparse.registry, "auto", *layer(), flat(dense=9.0, gather=8.0))
    assert {engine.name for engine in choice.engines} == {"dense", "gather"}


def test_auto_leaves_out_engines_that_cannot_run_it() -> None:
    choice = choose_engine(
        nansparse.registry, "auto", *layer(groups=2), flat(dense=9.0, gather=1.0, tile=1.0)
    )
    assert [engine.name for engine in choice.engines] == ["dense"]


def test_an_engine_that_cannot_win_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("gather", "tile"):
        engine = nansparse.registry.get(name)
        monkeypatch.setattr(engine, "unsupported_reasons", lambda *_, name=name: asked.append(name) or [])
    choice = choose_engine(nansparse.registry, "auto", *layer(), flat(dense=2.0, gather=1.0, tile=3.0))
    assert asked == ["gather"]
    assert [engine.name for engine in choice.engines] == ["gather", "dense"]


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"padding": 1}, {"padding": 2}])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rank", [2, 3])
def test_no_engine_has_less_to_do_than_the_least(rank: int, ratio: float, options: dict[str, int]) -> None:
    grid = (16,) * rank
    site = torch.rand(1, 1, *grid, generator=torch.Generator().manual_seed(0)) < ratio
    activation = SparseActivation.from_dense(torch.rand(2, 5, *grid).masked_fill(site, torch.nan))
    windows = convolution_windows(grid, 3, **options)
    convolution = Convolution(torch.rand(7, 5, *(3,) * rank), None, windows, 1, 0.5)
    kept = len(plan_windows(activation, windows, 0.5).out)
    for name in nansparse.registry.names():
        engine = nansparse.registry.get(name)
        least = engine.least_workload(kept, activation, convolution).amounts()
        most = engine.workload(activation, convolution).amounts()
        assert all(a <= b for a, b in zip(least, most, strict=True)), (name, least, most)


@pytest.mark.skipif(bool(kernels_problem()), reason=kernels_problem() or "-")
def test_rows_that_are_partly_nan_and_filled_windows_cost_cells() -> None:
    activation, convolution = layer()

    def spread(activation: SparseActivation) -> int:
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        assert plan.fills > 0
        return plan.fills * 9 * convolution.out_channels

    assert nansparse.registry.get("numba").workload(activation, convolution).cells == spread(activation)
    x = activation.to_dense()
    x[0, 0, 0, 5:] = torch.nan
    some = SparseActivation.from_dense(x)
    work = nansparse.registry.get("numba").workload(some, convolution)
    assert work.cells - spread(some) == pytest.approx(work.reads * 4 * 3 / 24)


def test_layers_in_which_nothing_is_left_out_have_prices_of_their_own() -> None:
    prices = flat(dense=9.0, gather=1.0)
    prices.table["dense"]["2 complete"] = tuple(1.1 * p for p in PER_CALL)
    activation, convolution = layer()
    assert choose_engine(nansparse.registry, "auto", activation, convolution, prices).forecast["dense"] == 9.0
    whole = SparseActivation.from_dense(torch.rand(1, 4, 8, 8))
    choice = choose_engine(nansparse.registry, "auto", whole, convolution, prices)
    assert choice.forecast == {"gather": 1.0, "dense": 1.1}
    # Predictions err by more than that.
    assert [engine.name for engine in choice.engines] == ["dense", "gather"]
    prices.table["gather"]["2 complete"] = tuple(0.1 * p for p in PER_CALL)
    choice = choose_engine(nansparse.registry, "auto", whole, convolution, prices)
    assert [engine.name for engine in choice.engines] == ["gather", "dense"]


def test_more_work_changes_the_choice() -> None:
    prices = Prices({"dense": {"2": (0, 1.0, 0, 0, 0, 0)}, "gather": {"2": (0, 2.0, 0, 0, 0, 0)}}, "made up")
    chosen = []
    for columns in (1, 6):
        x = torch.rand(1, 4, 8, 8)
        x[..., :columns] = torch.nan
        activation, convolution = SparseActivation.from_dense(x), layer()[1]
        choice = choose_engine(nansparse.registry, "auto", activation, convolution, prices)
        chosen.append(choice.engines[0].name)
        assert list(choice.forecast) == sorted(choice.forecast, key=choice.forecast.__getitem__)
    assert chosen == ["dense", "gather"]


def test_a_named_engine_is_taken_whatever_it_costs() -> None:
    choice = choose_engine(nansparse.registry, "gather", *layer(), flat(dense=1.0, gather=9.0))
    assert choice.engines[0].name == "gather"
    assert not choice.note
    assert not choice.forecast


def test_a_named_engine_that_cannot_run_it_says_why() -> None:
    choice = choose_engine(nansparse.registry, "gather", *layer(groups=2))
    assert choice.engines[0].name == "dense"
    assert choice.note == "gather: groups=2: gather runs groups=1"


def test_no_engine_at_all_is_an_error() -> None:
    class Empty(Registry):
        def names(self) -> list[str]:
            return []

    with pytest.raises(EngineError, match="no engine can run this convolution"):
        choose_engine(Empty(), "auto", *layer(), flat())


def test_the_choice_and_the_runners_up_are_in_the_record() -> None:
    net = torch.nn.Conv2d(4, 4, 3, padding=1).eval()
    x = torch.rand(1, 4, 8, 8)
    x[..., :5] = torch.nan
    with nansparse.enable(net) as run:
        net(x)
    (record,) = run.to_dict()["layers"]
    assert record["engine"] in record["forecast"]
    assert "dense" in record["forecast"]
    assert all(f"{name} " in run.summary() for name in record["forecast"])


def test_without_any_prices_the_engine_for_gpus_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No prices come with the package for GPUs; each of them may be measured."""
    engine = nansparse.registry.get("triton")
    monkeypatch.setattr(engine, "unsupported_reasons", lambda *_: [])
    choice = choose_engine(nansparse.registry, "auto", *layer(), flat())
    assert [engine.name for engine in choice.engines] == ["triton", "dense"]
    priced = choose_engine(nansparse.registry, "auto", *layer(), flat(dense=9.0))
    assert [engine.name for engine in priced.engines] == ["dense"]
