"""Pooling windows that overlap, are padded, large or reach past the grid, as the definition has it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import nansparse
from nansparse.functional import nan_max_pool
from tests.functional.drawing import Geometry, geometries
from tests.handlers.caught import assert_same, caught, holed, taught


def pool(x: Tensor) -> type:
    return F.max_pool2d if x.dim() == 4 else F.max_pool3d


@given(
    geometry=geometries(pooling=True),
    seed=st.integers(0, 10_000),
    pattern=st.sampled_from(["none", "few", "sites", "half", "channels", "one sample", "all"]),
    mode=st.sampled_from(["conservative", "aggressive"]),
    ceil=st.booleans(),
    max_ties=st.integers(1, 2),
)
def test_values_are_those_of_the_definition(
    geometry: Geometry, seed: int, pattern: str, mode: str, ceil: bool, max_ties: int
) -> None:
    x = holed(seed, (2, 3, *geometry.grid), pattern).mul(2).round()  # whole numbers tie
    options = (geometry.kernel, geometry.stride, geometry.padding, geometry.dilation)
    expected = nan_max_pool(x, *options, ceil, mode=mode, max_ties=max_ties).values
    found, record = caught(lambda x: pool(x)(x, *options, ceil), x, mode=mode, max_ties=max_ties)
    assert_same(found, expected)
    assert taught(record)


def test_a_random_share_is_drawn_as_the_definition_draws_it() -> None:
    x = torch.ones(2, 3, 7, 7)
    x[:, :, 3] = torch.nan
    share = {"mode": "aggressive", "nan_probability": 0.4}
    expected = nan_max_pool(x, 3, 2, 1, generator=torch.Generator().manual_seed(1), **share).values
    found, _ = caught(
        lambda x: F.max_pool2d(x, 3, 2, 1), x, generator=torch.Generator().manual_seed(1), **share
    )
    assert_same(found, expected)
    assert 0 < int(expected.isnan().sum()) < expected.numel()


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_indices_of_such_windows_need_the_dense_tensor_and_it_is_counted(mode: str) -> None:
    x = holed(3, (1, 2, 7, 7), "sites")
    found, record = caught(lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True), x, mode=mode)
    expected = nan_max_pool(x, 3, 2, 1, mode=mode)
    assert_same(found[0], expected.values)
    assert torch.equal(found[1], expected.indices)
    assert record.densified == 1
    assert "densified 1x" in record.summary()


def test_skipped_windows_are_counted() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[..., :4] = torch.rand(1, 1, 8, 4, generator=torch.Generator().manual_seed(0))
    _, record = caught(lambda x: F.max_pool2d(x, 3, 1, 1), x, mode="aggressive")
    expected = nan_max_pool(x, 3, 1, 1, mode="aggressive").values.isnan()
    assert record.layers[0].windows == 64
    assert record.layers[0].windows_skipped == int(expected.sum()) > 0


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("holes", [False, True], ids=["no hole", "whole sites missing"])
def test_unstable_windows_that_tile_the_grid_are_counted_as_the_definition_has_them(
    mode: str, rank: int, *, holes: bool
) -> None:
    x = torch.zeros(2, 5, *(8,) * rank)
    x[..., :4] = torch.rand(2, 5, *(8,) * (rank - 1), 4, generator=torch.Generator().manual_seed(0))
    if holes:
        x[:, :, 2:5] = torch.nan
    layout = torch.channels_last if rank == 2 else torch.channels_last_3d
    x = x.contiguous(memory_format=layout)
    _, record = caught(lambda x: pool(x)(x, 2, return_indices=True), x, mode=mode)
    expected = nan_max_pool(x, 2, 2, mode="aggressive").values.isnan()
    assert record.layers[0].windows == expected.numel()
    assert record.layers[0].windows_skipped == int(expected.sum()) > 0


def test_a_network_with_padded_pooling_stays_sparse() -> None:
    with torch.random.fork_rng(devices=[]):
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.MaxPool2d(3, 2, 1), torch.nn.Conv2d(4, 2, 1)
        ).eval()
    x = torch.zeros(1, 1, 32, 32)
    x[..., 12:20, 12:20] = 1
    with torch.inference_mode(), nansparse.enable(model) as run:
        model(nansparse.mask_background(x))
    assert run.densified == 0
    assert run.layers[-1].windows_skipped > 100
