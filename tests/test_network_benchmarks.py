"""The tables of the paper and the benchmark of networks: what they count, cut out and print."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import nansparse
from benchmarks import library_networks, network_runs, networks, tables, throughput, trained_networks
from nansparse.errors import InputError
from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.summary import tables as tables_of
from nansparse.evaluation.timing import Timing
from nansparse.imaging import conform, load_template
from nansparse.prediction import Outcome
from nansparse.zoo.tissue import new_tissue_model
from nansparse.zoo.tissue_unet import new_tissue_unet
from nansparse.zoo.weights_file import save_weights


def test_shares_are_counted_block_by_block():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.Sequential(nn.Conv2d(2, 2, 2, stride=2), nn.Conv2d(2, 1, 1))
    ).eval()
    x = torch.ones(1, 1, 4, 4)
    x[..., :2] = torch.nan
    x[..., 0, 2] = torch.nan
    with torch.inference_mode(), nansparse.enable(model, threshold=0.5) as run:
        model(x)
    # First layer: 9 of 16 windows. Second block: 2 of 4, twice.
    found = tables.shares(run, lambda layer: layer.split(".")[0])
    assert found == {"0": 9 / 16, "1": 4 / 8, "all": 13 / 24}


def test_the_digits_table_stands_beside_the_published_one():
    digits = next(network for network in tables.NETWORKS if network.name == "digits")
    rows = tables.count_windows(digits)
    assert all(0 <= row.values["windows_skipped"] <= 1 for row in rows)
    results = Results("paper-tables", "", {}, {}, rows, tables.published_beside(rows))
    (table,) = tables_of(results)
    assert [line["digits"] for line in table.lines] == ["conv1", "conv2", "conv3", "conv4", "all"]
    line = table.lines[1]
    assert (line["aggressive 0.5, published"], line["aggressive 1, published"]) == ("0.75", "0.15")
    assert float(line["aggressive 0.5"]) > 0.4
    assert "trained on scikit-learn" in table.note


@pytest.mark.parametrize("network", tables.NETWORKS, ids=lambda network: network.name)
def test_every_table_names_its_weights_and_why_it_differs(network):
    assert network.why
    random = "RANDOM" in network.weights
    assert random == (network.name == "Xception")
    assert set(network.published) <= set(network.settings)


def test_random_weights_are_the_same_every_time():
    first, second = (tables.seeded(lambda: nn.Conv2d(3, 4, 3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_bounding_box_holds_what_is_not_zero_and_fits_the_networks():
    x = torch.zeros(5, 1, 48, 48, 48)
    x[1, ..., 5:30, 40:47, 0:40] = 1
    x[3, ..., 5:30, 40:47, 8:48] = 1
    box = network_runs.bounding_box(x)
    assert [(part.start, part.stop) for part in box] == [(1, 4), (None, None), (5, 37), (32, 48), (0, 48)]
    assert float(x[box].sum()) == float(x.sum())


@pytest.fixture(scope="module")
def conformed():
    return conform(load_template().t1)


@pytest.fixture
def template(conformed, monkeypatch):
    """Conform the template once for all tests that want it: that takes seconds."""
    monkeypatch.setattr(networks, "conform", lambda _: conformed)
    return conformed


@pytest.mark.parametrize("count", [8, 16])
def test_slices_of_the_whole_volume_hold_as_much_brain_as_the_volume(count, template):
    x = networks.all_slices(count)
    assert x.shape == (count, 7, 256, 256)
    assert not x[0].any()
    assert not x[-1].any()
    whole = template.data
    assert float((x[:, 3] != 0).double().mean()) == pytest.approx((whole != 0).mean(), rel=0.01)


def test_every_network_of_slices_gets_as_many_as_are_asked_for(template):
    for case in (*networks.CASES, *library_networks.CASES):
        assert (case.image(1).dim() == 4) == (case.image in networks.SLICED)


def test_the_head_is_a_brain_on_black(template):
    x = networks.head(96)
    assert x.shape == (1, 1, 96, 96, 96)
    share = float((x != 0).double().mean())
    assert 0.2 < share < 0.35
    assert not x[..., 0, :, :].any()
    assert 0.5 < float(x.max()) <= 1


@pytest.mark.parametrize("case", library_networks.CASES, ids=lambda case: case.name)
def test_networks_of_libraries_take_what_they_are_shown(case, template):
    pytest.importorskip("monai")
    with torch.device("meta"):
        model = case.build().eval()
    shape = (1, *case.image(1).shape[1:])
    with torch.inference_mode():
        assert model(torch.empty(shape, device="meta")).shape == (shape[0], networks.CLASSES, *shape[2:])


def square(count):
    x = torch.zeros(count, 1, 32, 32)
    x[..., 8:24, 8:24] = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    return x


class Unpooled(nn.Module):
    """Pools and unpools, so that conservative mode has something to mark."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        y, indices = nn.functional.max_pool2d(self.first(x), 2, return_indices=True)
        return self.last(nn.functional.max_unpool2d(y, indices, 2))


def test_the_bounding_box_leaves_empty_slices_out():
    x = torch.cat([torch.zeros(1, 1, 32, 32), square(2), torch.zeros(1, 1, 32, 32)])
    case = networks.Case("small", Unpooled, lambda _: x)
    rows = {row.way: row for row in network_runs.measure_network(case, repeats=1, compiled=False)}
    assert rows["dense, bounding box"].values["share_of_grid"] == (2 / 4) * (1 / 4)
    # The labels of the box lie where the box was: elsewhere they would be those of another slice.
    assert rows["background marked, bounding box"].values["dice_inside"] > 0.9


def test_a_network_is_measured_in_every_way():
    case = networks.Case("small", Unpooled, lambda _: square(2), unpools=True)
    rows = {row.way: row for row in network_runs.measure_network(case, repeats=1, compiled=False)}
    assert list(rows) == [
        "dense, NCHW",
        "dense, channels_last",
        "dense, bounding box",
        "background marked",
        "background marked, bounding box",
        "nothing marked",
        "conservative",
    ]
    assert rows["dense, bounding box"].values["share_of_grid"] == 1 / 4
    assert rows["background marked"].cell["input"] == "2x1x32x32"
    sparse = list(rows.values())[3:]
    for row in (sparse[0], sparse[3]):
        assert row.values["windows_skipped"] > 0.2
    assert sparse[1].values["windows_skipped"] < 0.2
    nothing = rows["nothing marked"]
    assert nothing.policy["marking"] == "never"
    assert (nothing.values["windows_skipped"], nothing.values["dice_inside"]) == (0, 1)
    # These convolutions are too small for finding repeats to be worth it.
    assert all(row.values["macs_repeated"] == 0 for row in sparse)
    # Two cells of margin around three layers of 3 x 3 and a pooling: the inside is nearly untouched.
    assert all(0.8 < row.values["dice_inside"] <= 1 for row in sparse)
    (table,) = tables_of(Results("networks", "", {}, {}, list(rows.values())))
    assert [line["run"] for line in table.lines] == list(rows)


def test_margins_are_judged_one_by_one(monkeypatch):
    monkeypatch.setattr(trained_networks, "MARGINS", (0, 12))
    case = networks.Case("small", Unpooled, lambda _: square(2), "trained")
    none, whole = trained_networks.margin_rows(case, 2, torch.device("cpu"))
    assert (none.way, whole.way) == ("margin 0, not timed", "margin 12, not timed")
    # Three quarters of the first layer; unpooling leaves one NaN in four cells there, too few for the last.
    assert none.values["macs_skipped"] == 0.75 * 36 / (36 + 108)
    assert none.values["dice_inside"] < whole.values["dice_inside"] == 1


def timed(**seconds):
    return {
        way: Row({"network": "n"}, way, timing=Timing((time,)).to_dict()) for way, time in seconds.items()
    }


def test_the_best_dense_run_is_the_yardstick():
    times = {"dense, NCHW": 4.0, "dense, channels_last": 3.0, "dense, compiled": 2.0}
    times |= {"dense, bounding box": 1.5, "dense, compiled, bounding box": 1.2}
    times |= {"background marked": 0.5, "background marked, bounding box": 0.4, "conservative": 1.6}
    rows = timed(**times)
    network_runs.relate(rows)
    assert {way: row.values["speed_up"] for way, row in rows.items()} == pytest.approx(
        {way: 2.0 / time for way, time in times.items()}
    )
    assert rows["background marked"].values["over_box"] == pytest.approx(2.4)
    assert rows["background marked, bounding box"].values["over_box"] == pytest.approx(3.0)
    rows = timed(**{way: time for way, time in times.items() if "compiled" not in way})
    network_runs.relate(rows)
    assert rows["background marked"].values == pytest.approx({"speed_up": 6.0, "over_box": 3.0})


def test_goals_stand_beside_what_was_reached():
    case = networks.CASES[0]
    rows = [
        Row({"network": case.name}, "background marked", values={"speed_up": 5.0, "over_box": 1.2}),
        Row({"network": case.name}, "conservative", values={"speed_up": 1.5}),
    ]
    results = Results("networks", "", {}, {}, rows, {"goals": network_runs.goals(rows, networks.CASES)})
    _, table = tables_of(results)
    assert table.title == "Goals"
    assert [(line["measure"], line["goal"], line["reached"], line["met"]) for line in table.lines] == [
        ("speed-up", "4.00x", "5.00x", "yes"),
        ("over box", "1.30x", "1.20x", "no"),
        ("speed-up", "1.50x", "1.50x", "yes"),
    ]


def test_what_is_not_timed_has_a_table_of_its_own():
    rows = [*timed(dense=1.0, other=2.0).values()]
    rows.append(Row({"network": "n"}, "margin 2", values={"dice_inside": 0.5}))
    first, second = tables_of(Results("trained-networks", "", {}, {}, rows))[:2]
    assert [list(line) for line in first.lines] == [["network", "run", "time"]] * 2
    assert second.title == "Not timed"
    assert [list(line.values()) for line in second.lines] == [["n", "margin 2", "0.5000"]]


def test_goals_of_dice_are_no_ratios():
    goal = {"network": "n", "run": "r", "measure": "dice_inside", "goal": 0.995, "reached": 0.9949}
    table = tables_of(Results("networks", "", {}, {}, [], {"goals": [goal]}))[-1]
    assert (table.lines[0]["goal"], table.lines[0]["reached"]) == ("0.9950", "0.9949")
    assert table.lines[0]["met"] == "no"


def test_trained_networks_load_what_training_writes(tmp_path):
    with pytest.raises(InputError, match="run nansparse zoo train tissue --filters 71"):
        trained_networks.trained_cases(tmp_path)
    made = {
        trained_networks.FASTSURFER: new_tissue_model(71),
        trained_networks.UNET: new_tissue_unet(),
    }
    for name, model in made.items():
        save_weights(model, tmp_path / name)
    for case in trained_networks.trained_cases(tmp_path):
        name = trained_networks.UNET if case.name.startswith("U-Net") else trained_networks.FASTSURFER
        pairs = zip(case.build().parameters(), made[name].parameters(), strict=True)
        assert all(torch.equal(loaded, trained) for loaded, trained in pairs)
        assert case.weights == "trained"


def test_a_way_that_cannot_be_compiled_is_named(monkeypatch):
    def broken(model, **_):
        def run(x):
            raise RuntimeError("no compiler here\nmore")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    case = networks.Case("small", lambda: nn.Conv2d(1, 2, 1), lambda _: square(1))
    rows = network_runs.measure_network(case, repeats=1)
    assert [(row.way, row.fault) for row in rows if row.status == "unsupported"] == [
        ("dense, compiled", "RuntimeError: no compiler here"),
        ("dense, compiled, bounding box", "RuntimeError: no compiler here"),
    ]


def test_layouts_use_no_more_cores_than_there_are():
    assert throughput.layouts(2) == [(1, 1), (1, 2), (2, 1)]
    assert throughput.layouts(6) == [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)]


def test_throughput_counts_volumes_by_the_clock(monkeypatch):
    clock = iter([10.0, 16.0])
    asked = {}

    def quick(recipe, jobs, *, workers):
        asked.update(recipe=recipe, jobs=len(jobs), workers=workers)
        return iter([Outcome(job, "done") for job in jobs])

    monkeypatch.setattr(throughput, "predict_many", quick)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    row = throughput.measure_throughput(2, 3, volumes=2)
    assert (asked["jobs"], asked["workers"], asked["recipe"].threads) == (6, 2, 3)
    assert row.cell == {"workers": 2, "threads": 3}
    assert row.values["volumes"] == 4
    assert row.values["volumes_per_minute"] == pytest.approx(40)
    assert row.values["volumes_per_minute_and_core"] == pytest.approx(40 / 6)
