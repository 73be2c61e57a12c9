"""Statistics over space are taken over the real values only."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.functional.drawing import values
from tests.handlers.caught import assert_same, caught, holed, taught

PATTERNS = ("sites", "half", "channels", "one sample", "all")
SHAPES = ((2, 6, 5, 4), (2, 6, 3, 4, 2))
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
over_patterns = pytest.mark.parametrize("pattern", PATTERNS)


def normalized(x: Tensor, axes: tuple[int, ...], eps: float = 1e-5) -> Tensor:
    """Written from the definition, in double precision."""
    x = x.double()
    mean = x.nanmean(axes, keepdim=True)
    return (x - mean) / ((x - mean) ** 2).nanmean(axes, keepdim=True).add(eps).sqrt()


def scaled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    return x * weight.view(shape) + bias.view(shape)


@over_shapes
@over_patterns
def test_instance_norm(shape, pattern):
    x, weight, bias = holed(1, shape, pattern), values(2, (6,), torch.float32), values(3, (6,), torch.float32)
    expected = scaled(normalized(x, tuple(range(2, x.dim()))), weight, bias).float()
    found, record = caught(lambda x: F.instance_norm(x, weight=weight, bias=bias), x)
    assert_same(found, expected, 2e-5)
    assert taught(record)


@over_shapes
@over_patterns
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm(shape, pattern, groups):
    x, weight, bias = holed(4, shape, pattern), values(5, (6,), torch.float32), values(6, (6,), torch.float32)
    apart = x.unflatten(1, (groups, -1))
    expected = normalized(apart, tuple(range(2, apart.dim()))).flatten(1, 2)
    found, record = caught(lambda x: F.group_norm(x, groups, weight, bias), x)
    assert_same(found, scaled(expected, weight, bias).float(), 2e-5)
    assert taught(record)


@over_shapes
@over_patterns
@pytest.mark.parametrize("axes", [1, 2])
def test_layer_norm_over_the_last_axes(shape, pattern, axes):
    x = holed(7, shape, pattern)
    last = x.shape[-axes:]
    weight, bias = values(8, last, torch.float32), values(9, last, torch.float32)
    expected = normalized(x, tuple(range(-axes, 0))) * weight + bias
    assert_same(caught(lambda x: F.layer_norm(x, last, weight, bias), x)[0], expected.float(), 2e-5)


@over_patterns
def test_layer_norm_over_channels_moved_last(pattern):
    x = holed(10, (2, 6, 5, 4), pattern)
    found, _ = caught(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2), x)
    assert_same(found, normalized(x, (1,)).float(), 2e-5)


@over_shapes
@over_patterns
def test_batch_norm_with_running_statistics_is_pointwise(shape, pattern):
    x = holed(11, shape, pattern)
    options = [values(12 + i, (6,), torch.float32).abs() + 0.1 for i in range(4)]
    found, record = caught(lambda x: F.batch_norm(x, *options), x)
    assert_same(found, F.batch_norm(x, *options), 1e-5)
    assert taught(record)


@over_patterns
def test_batch_norm_without_running_statistics_uses_the_real_values(pattern):
    x = holed(16, (3, 6, 5, 4), pattern)
    found, record = caught(lambda x: F.batch_norm(x, None, None, training=True), x)
    assert_same(found, normalized(x, (0, 2, 3)).float(), 2e-5)
    assert taught(record)


def test_instance_norm_with_running_statistics_is_pointwise():
    x = holed(17, (2, 6, 5, 4), "half")
    layer = torch.nn.InstanceNorm2d(6, track_running_stats=True).eval()
    layer.running_mean.copy_(values(18, (6,)))
    found, _ = caught(layer, x)
    assert_same(found, layer(x), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize(
    "norm",
    [F.instance_norm, lambda x: F.group_norm(x, 2), lambda x: F.layer_norm(x, x.shape[-1:])],
    ids=["instance", "group", "layer"],
)
def test_norms_keep_the_dtype_and_large_offsets_do_not_hurt(norm, dtype):
    """A mean far from zero: the variance must not be a difference of large squares."""
    x = holed(19, (1, 4, 12, 12), "sites", torch.float64) + 8.0
    found, _ = caught(norm, x.to(dtype))
    assert found.dtype == dtype
    exact, _ = caught(norm, x.to(dtype).double())
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float64: 1e-12}[dtype]
    assert_same(found.double(), exact, tolerance)


@over_shapes
@over_patterns
@pytest.mark.parametrize(
    "pool",
    [
        lambda x, run: run(x, 1),
        lambda x, run: run(x, (1,) * (x.dim() - 2)),
        lambda x, run: run(x, 2),
        lambda x, run: run(input=x, output_size=(2, None, 1)[: x.dim() - 2]),
    ],
)
def test_adaptive_average_pooling(shape, pattern, pool):
    x = holed(20, shape, pattern)
    run = F.adaptive_avg_pool2d if x.dim() == 4 else F.adaptive_avg_pool3d
    real = pool((~x.isnan()).float(), run)
    expected = pool(x.nan_to_num(0.0), run) / real
    assert_same(caught(lambda x: pool(x, run), x)[0], expected)


@over_shapes
@over_patterns
@pytest.mark.parametrize(
    "average",
    [
        lambda x: x.mean(tuple(range(2, x.dim())), keepdim=True),
        lambda x: torch.mean(x, dim=tuple(range(2, x.dim())), keepdim=True),
        lambda x: x.mean(dim=tuple(range(2 - x.dim(), 0)), keepdim=True),
        lambda x: (F.avg_pool2d if x.dim() == 4 else F.avg_pool3d)(x, x.shape[2:]),
    ],
    ids=["method", "function", "negative axes", "pooling"],
)
def test_global_averages(shape, pattern, average):
    x = holed(21, shape, pattern)
    expected = x.nanmean(tuple(range(2, x.dim())), keepdim=True)
    assert_same(caught(average, x)[0], expected)


def test_average_pooling_of_small_windows_follows_ieee():
    x = holed(22, (2, 6, 6, 4), "few")
    for options in ({"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}):
        assert_same(caught(lambda x, o=options: F.avg_pool2d(x, **o), x)[0], F.avg_pool2d(x, **options))


def test_a_global_average_of_one_sample_without_batch():
    x = holed(23, (6, 4, 4), "sites")
    expected = x.nanmean((1, 2), keepdim=True)
    assert_same(caught(lambda x: F.adaptive_avg_pool2d(x, 1), x)[0], expected)
    assert_same(caught(lambda x: F.avg_pool2d(x, 4), x)[0], expected)
    assert_same(caught(lambda x: x.mean((-2, -1), keepdim=True), x)[0], expected)


@pytest.mark.parametrize(
    "average",
    [
        lambda x: x.flatten(2).mean(2),
        lambda x: x.mean(3).mean(2),
        lambda x: x.view(*x.shape[:2], -1).mean(-1),
    ],
    ids=["flattened", "axis by axis", "viewed"],
)
def test_a_global_average_in_other_words_does_not_erase_the_sample(average):
    x = torch.ones(2, 3, 4, 4)
    x[:, :, 0] = torch.nan
    found, _ = caught(average, x)
    assert_same(found, torch.ones(2, 3))
