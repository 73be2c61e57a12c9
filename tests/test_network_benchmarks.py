"""The tables of the paper and the benchmark of networks: what they count, cut out and print."""

import pytest
import torch
from torch import nn

import nansparse
from benchmarks import networks, tables
from nansparse.evaluation.results import Results
from nansparse.evaluation.summary import tables as tables_of


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
    assert random == (network.name in ("Xception", "FONDUE"))
    assert set(network.published) <= set(network.settings)


def test_random_weights_are_the_same_every_time():
    first, second = (tables.seeded(lambda: nn.Conv2d(3, 4, 3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_bounding_box_holds_what_is_not_zero_and_fits_the_networks():
    x = torch.zeros(1, 1, 48, 48, 48)
    x[..., 5:30, 40:47, 0:48] = 1
    box = networks.bounding_box(x)
    assert [(part.start, part.stop) for part in box] == [(5, 37), (32, 48), (0, 48)]
    assert float(x[(..., *box)].sum()) == float(x.sum())


def test_the_head_is_a_brain_on_black():
    x = networks.head(96)
    assert x.shape == (1, 1, 96, 96, 96)
    share = float((x != 0).double().mean())
    assert 0.2 < share < 0.35
    assert not x[..., 0, :, :].any()
    assert 0.5 < float(x.max()) <= 1


def test_a_network_is_measured_in_every_way(monkeypatch):
    small = {"small": (lambda: nn.Conv3d(1, networks.CLASSES, 3, padding=1), 32)}
    monkeypatch.setattr(networks, "NETWORKS", small)
    x = torch.zeros(1, 1, 32, 32, 32)
    x[..., 8:24, 8:24, 8:24] = 1
    monkeypatch.setattr(networks, "head", lambda side: x)
    rows = networks.measure_network("small", repeats=2)
    assert [row.way for row in rows] == [
        "dense",
        "dense, channels_last",
        "dense, bounding box",
        "background marked",
    ]
    assert rows[2].values["share_of_grid"] == rows[3].values["share_of_grid"] == 1 / 8
    assert 0.5 < rows[3].values["windows_skipped"] < 1
    assert max(row.values["speed_up"] for row in rows[:2]) == 1.0
    (table,) = tables_of(Results("networks", "", {}, {}, rows))
    assert [line["run"] for line in table.lines] == [row.way for row in rows]
    assert table.lines[3]["windows skipped"].endswith(" %")
