"""What operations do to uniform regions: whatever a rule says of a result holds in its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nansparse import uniform_regions
from nansparse.handlers import REGIONS
from nansparse.uniform import Uniform
from nansparse.uniform_regions import UniformRegions
from tests.functional.drawing import seeds
from tests.test_uniform import assert_repeats, drawn_mask, with_region

KEEP: dict[str, tuple[Any, Callable[[Tensor], tuple[tuple[Any, ...], dict[str, Any]]]]] = {
    "relu": (F.relu, lambda x: ((x,), {})),
    "relu in place": (F.relu, lambda x: ((x,), {"inplace": True})),
    "relu_": (Tensor.relu_, lambda x: ((x,), {})),
    "leaky_relu": (F.leaky_relu, lambda x: ((x, 0.2), {})),
    "gelu": (F.gelu, lambda x: ((x,), {})),
    "clamp": (torch.clamp, lambda x: ((x,), {"min": 0.0})),
    "sigmoid": (torch.sigmoid, lambda x: ((), {"input": x})),
    "prelu": (F.prelu, lambda x: ((x, torch.linspace(-1, 1, 3, dtype=x.dtype)), {})),
    "dropout off": (F.dropout, lambda x: ((x, 0.5, False), {})),
    "number": (torch.add, lambda x: ((x, 2.0), {})),
    "number first": (Tensor.__radd__, lambda x: ((x, 2.0), {})),
    "scalar tensor": (torch.mul, lambda x: ((x, torch.tensor(2.0)), {})),
    "one number a channel": (torch.mul, lambda x: ((x, x.new_ones(1, 3, *[1] * (x.dim() - 2)) / 3), {})),
    "twice itself": (torch.maximum, lambda x: ((x, x), {})),
    "plus itself in place": (Tensor.__iadd__, lambda x: ((x, x), {})),
    "instance norm": (F.instance_norm, lambda x: ((x,), {})),
    "group norm": (F.group_norm, lambda x: ((x, 3), {})),
    "batch norm": (F.batch_norm, lambda x: ((x, x.new_zeros(3), x.new_ones(3) * 2), {})),
    "clone": (Tensor.clone, lambda x: ((x,), {})),
    "cat": (torch.cat, lambda x: (([x, x],), {"dim": 1})),
}
LOSE = {
    "dropout on": (F.dropout, lambda x: ((x, 0.5, True), {})),
    "another tensor": (torch.add, lambda x: ((x, torch.randn_like(x)), {})),
    "a plane": (torch.add, lambda x: ((x, x.new_ones(x.shape[-2:])), {})),
    "clamp by a tensor": (torch.clamp, lambda x: ((x,), {"min": torch.randn_like(x)})),
    "cat of samples": (torch.cat, lambda x: (([x, x],), {})),
    "cat with another": (torch.cat, lambda x: (([x, torch.randn_like(x)], 1), {})),
    "reflected": (F.pad, lambda x: ((x, (1, 1), "reflect"), {})),
    "bicubic": (F.interpolate, lambda x: ((x,), {"scale_factor": 2.0, "mode": "bicubic"})),
}
grids = st.lists(st.integers(2, 6), min_size=2, max_size=3).map(tuple)


@pytest.fixture(autouse=True)
def any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniform_regions, "LEAST_SHARE", 0.0)


def followed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], noted: dict[Tensor, Uniform]) -> Any:
    """Ask the rule of an operation what becomes of some regions."""
    regions = UniformRegions()
    for x, region in noted.items():
        regions.note(x, region)
    with torch.no_grad():
        return REGIONS[func](regions, args, kwargs)


def drawn(seed: int, grid: tuple[int, ...], period: int, channels: int = 3) -> tuple[Tensor, Uniform]:
    region = Uniform(drawn_mask(seed, (2, *grid), 1.5), (period,) * len(grid))
    return with_region(seed, channels, region), region


@pytest.mark.parametrize("name", KEEP)
@given(seed=seeds, grid=grids, period=st.sampled_from((1, 2)))
@settings(max_examples=10)
def test_point_by_point_a_region_stays(name, seed, grid, period):
    x, region = drawn(seed, grid, period)
    func, arguments = KEEP[name]
    args, kwargs = arguments(x)
    found = followed(func, args, kwargs, {x: region})
    assert torch.equal(found.mask, region.mask)
    assert_repeats(func(*args, **kwargs), found)


@pytest.mark.parametrize("name", LOSE)
def test_what_says_nothing_of_a_region_ends_it(name):
    x, region = drawn(0, (6, 6), 1)
    func, arguments = LOSE[name]
    assert followed(func, *arguments(x), {x: region}) is None


@given(seed=seeds, grid=grids, periods=st.tuples(*[st.sampled_from((1, 2, 3))] * 2))
@settings(max_examples=30)
@pytest.mark.parametrize("func", [torch.add, torch.maximum, Tensor.__mul__, torch.cat])
def test_two_tensors_repeat_where_both_do(func, seed, grid, periods):
    one, first = drawn(seed, grid, periods[0])
    other, second = drawn(seed + 50, grid, periods[1])
    args = ([one, other], 1) if func is torch.cat else (one, other)
    found = followed(func, args, {}, {one: first, other: second})
    assert torch.equal(found.mask, first.mask & second.mask)
    assert_repeats(func(*args), found)


@given(
    seed=seeds,
    grid=grids,
    period=st.sampled_from((1, 2)),
    options=st.fixed_dictionaries(
        {
            "kernel_size": st.sampled_from((1, 2)),
            "stride": st.sampled_from((None, 1, 2)),
            "padding": st.sampled_from((0, 1)),
            "ceil_mode": st.booleans(),
        }
    ),
)
@settings(max_examples=40)
def test_averages_of_a_region_repeat_each_other(seed, grid, period, options):
    options["padding"] = min(options["padding"], options["kernel_size"] // 2)
    x, region = drawn(seed, grid, period)
    func = F.avg_pool2d if len(grid) == 2 else F.avg_pool3d
    found = followed(func, (x,), options, {x: region})
    assert_repeats(func(x, **options), found)
    if max(options["padding"], int(options["ceil_mode"])) == 0 and bool(region.mask.all()):
        assert found.mask.all()


@given(seed=seeds, grid=grids, factor=st.sampled_from((0.5, 1.5, 2.0, 3.0)), data=st.data())
@settings(max_examples=60)
def test_what_is_interpolated_between_equals_equals_them(seed, grid, factor, data):
    x, region = drawn(seed, grid, 1)
    linear = "bilinear" if len(grid) == 2 else "trilinear"
    options: dict[str, Any] = {
        "scale_factor": factor,
        "mode": data.draw(st.sampled_from(("nearest", linear))),
    }
    if options["mode"] == linear:
        options["align_corners"] = data.draw(st.booleans())
    found = followed(F.interpolate, (x,), options, {x: region})
    assert_repeats(F.interpolate(x, **options), found)
    x, region = x * 0 + 1, Uniform(torch.ones_like(region.mask), region.period)
    assert followed(F.interpolate, (x,), options, {x: region}).mask.all()


@given(
    seed=seeds,
    grid=grids,
    period=st.sampled_from((1, 2)),
    pads=st.lists(st.integers(-1, 3), min_size=4, max_size=4),
)
@settings(max_examples=60)
def test_padding_widens_the_grid_around_a_region(seed, grid, period, pads):
    x, region = drawn(seed, grid, period)
    found = followed(F.pad, (x, pads), {"value": 0.5}, {x: region})
    shifted = any(low % period for low in pads[::2])
    assert (found is None) == shifted
    if found is not None:
        assert_repeats(F.pad(x, pads, value=0.5), found)
