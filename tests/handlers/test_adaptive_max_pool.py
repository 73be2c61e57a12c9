"""Adaptive max pooling: max pooling where its windows tile the grid, a maximum over a whole grid."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nansparse
from nansparse.fallback import TIES_LOST
from nansparse.functional import nan_max_pool
from tests.handlers.caught import assert_same, caught, holed, taught

POOLS = {2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
CASES = [((8, 12), 4, (2, 3)), ((8, 12), (2, None), (4, 1)), ((4, 6, 8), (2, 3, 4), (2, 2, 2))]


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize(("grid", "size", "kernel"), CASES)
@pytest.mark.parametrize("pattern", ["sites", "cells"])
def test_windows_that_tile_follow_the_definitions(mode, grid, size, kernel, pattern):
    x = holed(0, (2, 3, *grid), pattern).round()  # rounded numbers tie
    found, record = caught(lambda x: POOLS[len(grid)](x, size, return_indices=True), x, mode=mode)
    expected = nan_max_pool(x, kernel, mode=mode)
    assert_same(found[0], expected.values)
    assert torch.equal(found[1], expected.indices)
    assert taught(record)


def test_ties_are_marked_where_the_input_holds_no_nan():
    x = torch.ones(1, 1, 4, 4)
    x[..., :2, :2] = torch.arange(4.0).view(2, 2)
    found, _ = caught(nn.AdaptiveMaxPool2d(2), x, mode="aggressive")
    assert found.isnan().tolist() == [[[[False, True], [True, True]]]]


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize("grid", [(5, 7), (3, 4, 5)])
def test_over_the_whole_grid_it_is_the_maximum_of_the_real_values(mode, grid):
    x = holed(1, (2, 3, *grid), "cells").round()
    x[1, 2] = torch.nan
    found, _ = caught(lambda x: POOLS[len(grid)](x, 1), x, mode=mode)
    expected = x.nan_to_num(-torch.inf).flatten(2).amax(2)
    expected[1, 2] = torch.nan
    assert_same(found.flatten(1), expected)
    plain = torch.ones(1, 1, *grid)  # all tie, and nothing is marked
    assert caught(lambda x: POOLS[len(grid)](x, 1), plain, mode=mode)[0].flatten().tolist() == [1.0]


def test_windows_of_unequal_sizes_are_left_to_torch():
    x = holed(2, (1, 2, 5, 7))
    found, record = caught(lambda x: F.adaptive_max_pool2d(x, 3), x)
    assert_same(found, F.adaptive_max_pool2d(x, 3))
    assert record.densified == 1


class Computing(nn.Module):
    """Does arithmetic with its pooling indices."""

    def forward(self, x):
        y, indices = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y, indices + 0, 2)


def test_ties_that_are_lost_are_on_record():
    x = torch.zeros(1, 1, 4, 4)
    model = Computing().eval()
    with nansparse.enable(model) as record:
        model(x)
    assert [layer.operation for layer in record.layers if TIES_LOST in layer.notes] == ["add"]
    assert "ties remembered with them do not reach an unpooling" in record.summary()
