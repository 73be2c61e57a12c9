"""Geometry: what an output reads, cell by cell, against loops and against torch's output shapes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from nansparse.errors import InputError
from nansparse.threshold import is_skipped
from nansparse.windows import (
    GAP,
    PADDING,
    as_ints,
    convolution_windows,
    transposed_windows,
)
from tests.functional import drawing, reference
from tests.functional.test_conv_transpose import transposed_geometries


@given(geometry=drawing.geometries())
@settings(max_examples=80)
def test_a_convolution_reads_these_cells(geometry):
    grid, kernel, stride, padding, dilation = geometry
    windows = convolution_windows(*geometry)
    expected = [
        [
            reference.flat_number(cell, grid) if reference.is_inside(cell, grid) else PADDING
            for cell in reference.window_cells(site, kernel, stride, padding, dilation)
        ]
        for site in np.ndindex(windows.out_grid)
    ]
    assert windows.table().tolist() == expected
    assert windows.table().dtype == torch.int64
    assert windows.volume == math.prod(kernel)
    assert windows.cells().shape == windows.out_grid
    assert (windows.cells() == windows.volume).all()


@given(geometry=transposed_geometries())
@settings(max_examples=80)
def test_a_transposed_convolution_reads_these_cells(geometry):
    """Seen from the inputs: i and kernel position k meet at output i * stride - padding + k * dilation."""
    grid, kernel, stride, padding, output_padding, dilation = geometry
    windows = transposed_windows(*geometry)
    table = windows.table()
    met = {}
    for cell in np.ndindex(grid):
        for number, offset in enumerate(itertools.product(*map(range, kernel))):
            out = [
                i * s - p + k * d
                for i, s, p, k, d in zip(cell, stride, padding, offset, dilation, strict=True)
            ]
            if reference.is_inside(tuple(out), windows.out_grid):
                site = reference.flat_number(tuple(out), windows.out_grid)
                met[site, number] = reference.flat_number(cell, grid)
    found = {(o, k): int(table[o, k]) for o, k in (table >= 0).nonzero().tolist()}
    assert found == met
    assert torch.equal(windows.cells().flatten(), (table != GAP).sum(1))
    for axis in range(len(grid)):
        for out, offset in np.ndindex(*windows.axis_table(axis).shape):
            is_gap = (out + padding[axis] - offset * dilation[axis]) % stride[axis] != 0
            assert (windows.axis_table(axis)[out, offset] == GAP) == is_gap


@given(geometry=drawing.geometries())
@settings(max_examples=40)
def test_output_shapes_are_those_of_torch(geometry):
    grid, kernel, *options = geometry
    namesake = F.conv2d if len(grid) == 2 else F.conv3d
    out = namesake(torch.zeros(1, 1, *grid), torch.zeros(1, 1, *kernel), None, *options)
    assert convolution_windows(*geometry).out_grid == tuple(out.shape[2:])


@given(geometry=transposed_geometries())
@settings(max_examples=40)
def test_transposed_output_shapes_are_those_of_torch(geometry):
    grid, kernel, stride, padding, output_padding, dilation = geometry
    namesake = F.conv_transpose2d if len(grid) == 2 else F.conv_transpose3d
    x, weight = torch.zeros(1, 1, *grid), torch.zeros(1, 1, *kernel)
    out = namesake(x, weight, None, stride, padding, output_padding, 1, dilation)
    assert transposed_windows(*geometry).out_grid == tuple(out.shape[2:])


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_same_keeps_the_grid_and_puts_the_odd_cell_on_the_high_side(kernel, dilation):
    windows = convolution_windows((7, 1), kernel, padding="same", dilation=dilation)
    span = dilation * (kernel - 1)
    assert windows.out_grid == (7, 1)
    assert windows.padding == (span // 2, span // 2)
    first = windows.axis_table(0)[0]
    assert first.eq(PADDING).sum() == sum(k * dilation < span // 2 for k in range(kernel)) + sum(
        k * dilation - span // 2 >= 7 for k in range(kernel)
    )


def test_one_geometry_is_laid_out_once():
    first = convolution_windows((8, 8), 3, padding=1)
    again = convolution_windows([8, 8], (3, 3), [1, 1], (1,), 1)
    assert first == again
    assert hash(first) == hash(again)
    assert first.table() is again.table()


def test_rank_is_data():
    flat = convolution_windows((4, 5), (3, 2), padding=(1, 0))
    deep = convolution_windows((1, 4, 5), (1, 3, 2), padding=(0, 1, 0))
    assert torch.equal(flat.table(), deep.table())


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, (3, 3)), ((3,), (3, 3)), ([1, 2], (1, 2)), (torch.Size([4, 5]), (4, 5)), (np.array([1, 2]), (1, 2))],
)
def test_options_are_spread_over_the_axes(value, expected):
    assert as_ints(value, 2, "stride", 1) == expected


@pytest.mark.parametrize(
    "value", [0, -1, (1, 0), (1, 2, 3), (), 1.0, (1.0, 2), "12", None, (None, 1), np.array([1.5, 2])]
)
def test_other_options_are_refused(value):
    with pytest.raises(InputError, match="stride must be an integer >= 1, or 2 of them, got"):
        as_ints(value, 2, "stride", 1)


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"kernel \(3, 1\) does not fit the padded input grid \(2, 2\)"):
        convolution_windows((2, 2), (3, 1))
    with pytest.raises(InputError, match="no output"):
        transposed_windows((2, 2), 1, padding=1)


@pytest.mark.parametrize("threshold", drawing.THRESHOLDS)
def test_is_skipped_divides_as_the_user_writes(threshold):
    cells = torch.full((401,), 400)
    skipped = is_skipped(torch.arange(401), cells, threshold)
    assert skipped.tolist() == [hole >= round(threshold * 400) for hole in range(401)]


def test_a_window_without_cells_is_never_skipped():
    assert not is_skipped(torch.tensor([0]), torch.tensor([0]), 0.5).any()
