"""Uniform regions: what follows from the geometry, against literal loops and against values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nansparse.uniform import Uniform, find_uniform
from nansparse.windows import GAP, PADDING, Windows, convolution_windows, transposed_windows
from tests.functional import drawing
from tests.functional.drawing import values
from tests.functional.test_conv_transpose import transposed_geometries


def drawn_mask(seed: int, shape: tuple[int, ...], share: float) -> Tensor:
    return values(seed, shape, torch.float64).abs() < share


def with_region(seed: int, channels: int, region: Uniform) -> Tensor:
    """Draw a tensor that repeats itself in a region and nowhere else."""
    batch, *grid = region.mask.shape
    x = values(seed, (batch, channels, *grid), torch.float64)
    rows = values(seed + 1, (batch, *region.period, channels), torch.float64)
    for n, *site in np.argwhere(region.mask.numpy()):
        phase = [s % p for s, p in zip(site, region.period, strict=True)]
        x[(n, slice(None), *site)] = rows[(n, *phase)]
    return x


def assert_repeats(x: Tensor, region: Uniform) -> None:
    """Check what a region says of a tensor."""
    assert region.mask.shape == x.shape[:1] + x.shape[2:]
    seen: dict[tuple[int, ...], Tensor] = {}
    for n, *site in np.argwhere(region.mask.numpy()).tolist():
        key = (n, *(s % p for s, p in zip(site, region.period, strict=True)))
        row = x[(n, slice(None), *site)]
        torch.testing.assert_close(row, seen.setdefault(key, row))


def literal(mask: Tensor, windows: Windows) -> Tensor:
    """Say which windows lie in a mask, window by window."""
    table, batch = windows.table(), len(mask)
    flat = mask.flatten(1)
    inside = [
        all(cell != PADDING and (cell == GAP or bool(flat[n, cell])) for cell in reads)
        for n in range(batch)
        for reads in table.tolist()
    ]
    return torch.tensor(inside).view(batch, *windows.out_grid)


@given(
    geometry=drawing.geometries(),
    seed=drawing.seeds,
    share=st.floats(0.5, 4.0),
    period=st.sampled_from((1, 2, 3)),
)
@settings(max_examples=80)
def test_windows_that_lie_in_a_region_repeat_each_other(geometry, seed, share, period):
    windows = convolution_windows(*geometry)
    region = Uniform(drawn_mask(seed, (2, *windows.grid), share), (period,) * len(windows.grid))
    found = region.through(windows)
    assert torch.equal(found.mask, literal(region.mask, windows))
    x, weight = with_region(seed, 2, region), values(seed + 2, (3, 2, *windows.kernel), torch.float64)
    convolve = F.conv2d if len(windows.grid) == 2 else F.conv3d
    assert_repeats(convolve(x, weight, None, *geometry[2:]), found)


@given(
    geometry=transposed_geometries(),
    seed=drawing.seeds,
    share=st.floats(0.5, 4.0),
    period=st.sampled_from((1, 2)),
)
@settings(max_examples=80)
def test_so_do_the_outputs_of_a_transposed_convolution_in_steps_of_its_stride(geometry, seed, share, period):
    windows = transposed_windows(*geometry)
    region = Uniform(drawn_mask(seed, (2, *windows.grid), share), (period,) * len(windows.grid))
    found = region.through(windows)
    # Between the strides some outputs read nothing; next to padding they may be left out.
    read = windows.cells() > 0
    assert torch.equal(found.mask[:, read], literal(region.mask, windows)[:, read])
    x, weight = with_region(seed, 2, region), values(seed + 2, (2, 3, *windows.kernel), torch.float64)
    _, _, stride, padding, extra, dilation = geometry
    convolve = F.conv_transpose2d if len(windows.grid) == 2 else F.conv_transpose3d
    assert_repeats(convolve(x, weight, None, stride, padding, extra, 1, dilation), found)


@given(seed=drawing.seeds, grid=st.lists(st.integers(1, 5), min_size=2, max_size=3), data=st.data())
@settings(max_examples=60)
def test_every_site_knows_the_first_of_its_kind(seed, grid, data):
    period = tuple(data.draw(st.integers(1, 3)) for _ in grid)
    region = Uniform(drawn_mask(seed, (2, *grid), data.draw(st.floats(0.0, 3.0))), period)
    expected, first = [], {}
    for number, (n, *site) in enumerate(itertools.product(range(2), *map(range, grid))):
        key = (n, *(s % p for s, p in zip(site, period, strict=True)))
        inside = bool(region.mask[(n, *site)])
        expected.append(first.setdefault(key, number) if inside else number)
    assert region.originals().tolist() == expected
    assert region.classes == math.prod(period)


@given(seed=drawing.seeds, periods=st.lists(st.integers(1, 4), min_size=4, max_size=4))
@settings(max_examples=30)
def test_two_regions_meet_where_both_repeat(seed, periods):
    one = Uniform(drawn_mask(seed, (2, 6, 7), 2.0), tuple(periods[:2]))
    other = Uniform(drawn_mask(seed + 1, (2, 6, 7), 2.0), tuple(periods[2:]))
    both = one.meet(other)
    assert torch.equal(both.mask, one.mask & other.mask)
    assert_repeats(with_region(seed, 2, one) + with_region(seed + 9, 2, other), both)
    assert one.meet(one) is one


def test_the_background_of_an_image_is_what_equals_its_first_site():
    x = torch.zeros(2, 2, 5, 6)
    x[0, :, 2:4, 1:3] = 1
    x[1] += 7.0
    x[1, 0, 4, 5] = 3.0
    found = find_uniform(x)
    assert found.period == (1, 1)
    assert torch.equal(found.mask, torch.stack([x[0, 0] == 0, x[1, 0] == 7]))
    assert_repeats(x, found)
    x[0, 0, 2:] *= -1.0  # what divides by a zero sees its sign
    assert torch.equal(find_uniform(x).mask[0, :2], found.mask[0, :2])
    assert not find_uniform(x).mask[0, 2:].any()
