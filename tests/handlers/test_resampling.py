"""Interpolation, padding, crops and windowed averages give what torch gives on dense tensors with NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.handlers.caught import assert_same, caught, holed, taught

PATTERNS = ("few", "sites", "half", "channels", "one sample", "all")
GRIDS = ((5, 4), (6, 1), (3, 4, 2))


def grids(least: int = 1) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(least, 6), min_size=2, max_size=3)


patterns, seeds = st.sampled_from(PATTERNS), st.integers(0, 10_000)


def assert_as_torch(x: torch.Tensor, function: Any, tolerance: float = 1e-5) -> None:
    found, record = caught(function, x)
    assert_same(found, function(x), tolerance)
    assert taught(record)


@given(
    seed=seeds,
    grid=grids(),
    pattern=patterns,
    mode=st.sampled_from(["nearest", "nearest-exact", "linear"]),
    scale=st.sampled_from([0.5, 0.7, 1.0, 1.5, 2.0, 3.0]) | st.floats(0.6, 4.0),
    by_size=st.booleans(),
    align=st.booleans(),
    recompute=st.booleans(),
)
def test_interpolation(
    seed: int,
    grid: list[int],
    pattern: str,
    mode: str,
    scale: float,
    by_size: bool,
    align: bool,
    recompute: bool,
) -> None:
    grid = [max(size, 2) if scale < 1 else size for size in grid]
    x = holed(seed, (2, 3, *grid), pattern)
    options: dict[str, Any] = {"mode": mode}
    if mode == "linear":
        options = {"mode": "bilinear" if len(grid) == 2 else "trilinear", "align_corners": align}
    if by_size:
        options["size"] = [max(1, int(size * scale)) for size in grid]
    else:
        options.update(scale_factor=scale, recompute_scale_factor=recompute)
    assert_as_torch(x, lambda x: F.interpolate(x, **options))


@pytest.mark.parametrize(
    ("size", "scale", "mode", "layout"),
    [
        (21, 1.035843299268218, "nearest", torch.contiguous_format),
        (26, 2.0110108117506846, "nearest", torch.channels_last),
        (5, 5.4, "bilinear", torch.channels_last),
    ],
)
def test_where_a_position_comes_close_to_a_cell_torch_decides(
    size: int, scale: float, mode: str, layout: torch.memory_format
) -> None:
    x = holed(2, (1, 3, size, size), "half").contiguous(memory_format=layout)
    x[:, :, ::3] = torch.nan
    assert_as_torch(x, lambda x: F.interpolate(x, scale_factor=scale, mode=mode))


@pytest.mark.parametrize(
    ("shape", "options", "last"),
    [
        ((1, 4, 2, 110), {"mode": "nearest", "scale_factor": (2.3, 3.0)}, False),
        ((1, 8, 150, 100), {"mode": "nearest-exact", "size": (55, 185)}, True),
        ((1, 8, 2, 2, 7), {"mode": "nearest", "scale_factor": 2.3}, True),
        ((1, 8, 20, 70), {"mode": "nearest-exact", "scale_factor": 4}, False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_takes_other_ways_for_other_sizes(
    shape: tuple[int, ...], options: dict[str, Any], last: bool, dtype: torch.dtype
) -> None:
    x = holed(2, shape, "half", dtype)
    x[:, :, 1::3] = torch.nan
    if last:
        x = x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    assert_as_torch(x, lambda x: F.interpolate(x, **options))


def test_no_output_place_is_the_error_of_torch() -> None:
    x = holed(4, (1, 2, 12, 10), "half")
    with pytest.raises(RuntimeError, match="should be greater than 0"):
        caught(lambda x: F.interpolate(x, scale_factor=0.05, recompute_scale_factor=True, mode="bilinear"), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_interpolation_in_other_types(dtype: torch.dtype) -> None:
    x = holed(3, (1, 4, 6, 5), "half", dtype)
    assert_as_torch(
        x, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), 1e-12 if dtype.itemsize > 4 else 1e-2
    )


def test_a_scale_for_each_axis_and_the_module() -> None:
    x = holed(4, (2, 3, 4, 5), "sites")
    assert_as_torch(x, lambda x: F.interpolate(x, scale_factor=(2.0, 1.0)))
    assert_as_torch(x, torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))


@pytest.mark.parametrize(
    "options", [{"mode": "bicubic"}, {"mode": "area"}, {"mode": "bilinear", "antialias": True}]
)
def test_other_modes_are_dense_and_counted(options: dict[str, Any]) -> None:
    x = holed(5, (1, 3, 6, 6), "few")
    found, record = caught(lambda x: F.interpolate(x, scale_factor=2, **options), x)
    assert_same(found, F.interpolate(x, scale_factor=2, **options))
    assert record.densified == 1


@pytest.mark.parametrize("message", ["should be greater than 0", "only one of size or scale_factor"])
def test_mistakes_get_the_error_of_torch(message: str) -> None:
    size = (0, 0) if "greater" in message else (2, 2)
    scale = None if "greater" in message else 2.0
    with pytest.raises((RuntimeError, ValueError), match=message):
        caught(lambda x: F.interpolate(x, size=size, scale_factor=scale), holed(6, (1, 1, 4, 4), "few"))


@given(
    seed=seeds,
    grid=grids(3),
    pattern=patterns,
    mode=st.sampled_from(["constant", "replicate", "reflect", "circular"]),
    pads=st.lists(st.integers(0, 2), min_size=6, max_size=6),
    value=st.sampled_from([None, 0, 1.5]),
)
def test_padding(
    seed: int, grid: list[int], pattern: str, mode: str, pads: list[int], value: float | None
) -> None:
    x = holed(seed, (2, 3, *grid), pattern)
    value = value if mode == "constant" else None
    assert_as_torch(x, lambda x: F.pad(x, pads[: 2 * len(grid)], mode=mode, value=value))


def test_constant_padding_crops_too_and_may_name_fewer_axes() -> None:
    x = holed(8, (2, 3, 5, 6), "sites")
    assert_as_torch(x, lambda x: F.pad(x, (-1, 2)))
    assert_as_torch(x, lambda x: F.pad(x, (0, 0, 1, -2), value=2.0))


def test_padding_of_channels_is_dense_and_counted() -> None:
    x = holed(9, (2, 3, 4, 4), "sites")
    found, record = caught(lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)), x)
    assert_same(found, F.pad(x, (0, 0, 0, 0, 1, 1)))
    assert record.densified == 1


def test_padding_by_nothing_keeps_the_sites_and_is_no_view() -> None:
    x = holed(10, (2, 3, 4, 4), "sites")

    def function(x: torch.Tensor) -> torch.Tensor:
        padded = F.pad(x, (0, 0, 0, 0), mode="replicate")
        padded += 1
        return torch.cat([x, padded], 1)

    assert_as_torch(x, function)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "index",
    [
        (slice(None), slice(None), slice(1, 4), slice(None, -1)),
        (..., slice(None, None, 2)),
        (slice(None), slice(0, 2), ..., slice(1, 3)),
        (slice(None), slice(None), slice(3, 3)),
    ],
)
def test_crops(pattern: str, index: Any) -> None:
    assert_as_torch(holed(11, (2, 3, 5, 4), pattern), lambda x: x[index])


def test_a_crop_is_a_view() -> None:
    x = holed(12, (2, 3, 5, 4), "few")

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 0
        x[:, :, 1:4] += 1
        return x

    found, _ = caught(function, x)
    assert_same(found, function(x))


@given(
    seed=seeds,
    grid=grids(2),
    pattern=patterns,
    kernel=st.integers(1, 3),
    stride=st.sampled_from([None, 1, 2, 3]),
    padding=st.integers(0, 1),
    ceil=st.booleans(),
    count=st.booleans(),
)
def test_average_pooling(
    seed: int,
    grid: list[int],
    pattern: str,
    kernel: int,
    stride: int | None,
    padding: int,
    ceil: bool,
    count: bool,
) -> None:
    grid = [max(size, kernel) for size in grid]
    # A window as large as the grid averages over space: tests/handlers/test_averages.py.
    grid[0] += 1
    padding = min(padding, kernel // 2)
    pool = F.avg_pool2d if len(grid) == 2 else F.avg_pool3d
    x = holed(seed, (2, 3, *grid), pattern)
    assert_as_torch(x, lambda x: pool(x, kernel, stride, padding, ceil, count))


@pytest.mark.parametrize("grid", GRIDS)
def test_a_plain_tensor_is_left_to_torch(grid: tuple[int, ...]) -> None:
    x = torch.ones(1, 2, *grid)
    found, record = caught(lambda x: F.interpolate(x, scale_factor=2), x)
    assert torch.equal(found, F.interpolate(x, scale_factor=2))
    assert record.layers == []
