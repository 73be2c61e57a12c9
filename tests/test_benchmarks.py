"""The benchmarks measure what they say: masks, medians, and that engines are compared at all."""

import torch

from benchmarks import pooling
from benchmarks.measure import time_side_by_side
from nansparse.evaluation.conditions import fixed_conditions
from nansparse.evaluation.masks import nan_mask


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


def test_every_way_is_timed_as_often_and_the_median_lies_between_the_quartiles():
    times = time_side_by_side({"a": lambda: None, "b": lambda: None}, repeats=5, warmup=1)
    assert set(times) == {"a", "b"}
    for measured in times.values():
        assert len(measured["ms"]) == 5
        assert measured["quartiles"][0] <= measured["median"] <= measured["quartiles"][1]


def test_conditions_are_put_back():
    before = torch.get_num_threads()
    with fixed_conditions(1):
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before


def test_pooling_is_timed_in_each_way(monkeypatch):
    monkeypatch.setitem(pooling.GEOMETRIES, "small", (2, (8, 8), 2, 2))
    measured = pooling.measure_pooling("small", "sites", 0.5, repeats=2)
    (row,) = pooling.rows([measured])
    assert row["NaN sites"] == "50 %"
    assert {"cells (torch)", "the definition, dense"} <= set(measured["times"])
    assert all(row[way].endswith(" ms") for way in measured["times"])
