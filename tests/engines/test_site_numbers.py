"""Batches whose sites cannot be counted in 32 bits, without laying any of them out."""

from __future__ import annotations

import pytest
import torch

from nansparse.phases import find_phases, padded_reads
from nansparse.sites import Sites
from nansparse.windows import convolution_windows

META = torch.device("meta")
CPU = torch.device("cpu")
LAST = 2**31 - 1


@pytest.mark.parametrize(
    ("batch", "grid"),
    [(128, (256, 256, 256)), (129, (256, 256, 256)), (1, (46341, 46341)), (3, (1024, 1024, 1024))],
    ids=str,
)
def test_numbers_past_two_to_the_31_give_the_right_coordinates(batch, grid):
    sites = Sites(None, batch, grid, META)
    last = [batch - 1, *(size - 1 for size in grid)]
    few = Sites(torch.tensor([0, 1, sites.total - 1]), batch, grid, CPU)
    assert few.numbers.dtype == torch.int64
    assert few.coords.dtype == torch.int32
    assert few.coords.tolist() == [[0] * len(last), [0] * (len(last) - 1) + [1], last]
    assert few.take(torch.tensor([2])).coords.tolist() == [last]


@pytest.mark.parametrize(
    ("grid", "dtype"),
    [((2, LAST // 2 - 8), torch.int32), ((2, LAST // 2 + 8), torch.int64), ((2**16, 2**16), torch.int64)],
    ids=str,
)
def test_rows_are_numbered_in_32_bits_only_where_that_fits(grid, dtype):
    assert Sites(None, 1, grid, META).row_of.dtype == dtype


def test_the_padded_map_may_need_64_bits_where_the_grid_itself_does_not():
    """2^31 - 8 sites, and padding on all sides: the flat places of the padded map go past 2^31."""
    grid = (2**15, 2**16 - 1)
    windows = convolution_windows(grid, 3, 1, 1)
    (phase,) = find_phases(windows)
    rows = torch.empty(1, *grid, dtype=torch.int32, device=META)
    _, strides, base = padded_reads(phase, grid, windows.out_grid, rows)
    assert base.dtype == torch.int64
    assert strides == [2**16 + 1, 1]
    small = torch.empty(1, 64, 64, dtype=torch.int32, device=META)
    (phase,) = find_phases(convolution_windows((64, 64), 3, 1, 1))
    assert padded_reads(phase, (64, 64), (64, 64), small)[2].dtype == torch.int32


def test_a_coordinate_at_the_edge_of_32_bits():
    sites = Sites(torch.tensor([LAST - 1, LAST]), 1, (1, 2**31), CPU)
    assert sites.coords.tolist() == [[0, 0, LAST - 1], [0, 0, LAST]]
