"""Batch mates, memory layout and random state have no say in a result; the input is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nansparse.functional import (
    nan_conv,
    nan_conv_transpose,
    nan_linear,
    nan_max_pool,
    nan_max_unpool,
    skipped_windows,
)
from tests.functional import drawing


def unpool(x: Tensor, mode: str) -> Tensor:
    pooled = nan_max_pool(x, 2, mode=mode)
    return nan_max_unpool(pooled.values, pooled.indices, 2, ties=pooled.ties)


def ties(x: Tensor) -> Tensor:
    found = nan_max_pool(x, 3, 2, 1, mode="conservative").ties
    assert found is not None
    return found


WEIGHT = drawing.values(1, (4, 2, 3, 3))
OPERATIONS = {
    "conservative pool": lambda x: nan_max_pool(x, 2, mode="conservative").values,
    "aggressive pool": lambda x: nan_max_pool(x, 2, mode="aggressive").values,
    "indices": lambda x: nan_max_pool(x, 3, 2, 1, mode="aggressive").indices,
    "ties": ties,
    "conservative unpool": lambda x: unpool(x, "conservative"),
    "aggressive unpool": lambda x: unpool(x, "aggressive"),
    "conv": lambda x: nan_conv(x, WEIGHT, padding=1, groups=2),
    "transposed": lambda x: nan_conv_transpose(x, WEIGHT, stride=2, groups=2),
    "linear": lambda x: nan_linear(x, drawing.values(2, (3, 8))),
    "skipped": lambda x: skipped_windows(x, 3, padding=1),
}


def activation(batch: int = 4) -> Tensor:
    """One sample whole, one with few NaN, one with many, one all NaN; ties throughout."""
    x = drawing.levels(0, (4, 4, 8, 8))
    patterns = ("none", "few", "half", "all")
    samples = [drawing.with_nan(x[i : i + 1], pattern, i) for i, pattern in enumerate(patterns)]
    return torch.cat(samples)[:batch]


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_batch_of_four_is_four_batches_of_one(name):
    x = activation()
    one_by_one = torch.cat([OPERATIONS[name](x[i : i + 1]) for i in range(4)])
    together = OPERATIONS[name](x)
    # Values are compared to rounding: torch may add in another order for another batch size.
    torch.testing.assert_close(together, one_by_one, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("layout", ["channels last", "sliced", "expanded", "transposed"])
def test_memory_layout_is_no_matter(name, layout):
    x = activation()
    if layout == "channels last":
        other = x.to(memory_format=torch.channels_last)
    elif layout == "sliced":
        other = torch.stack([x, x + 1], -1).flatten(3)[..., ::2]
    elif layout == "expanded":
        x = x[1:2, :1].expand(2, 4, 8, 8)
        other, x = x, x.contiguous()
    else:
        other = x.transpose(2, 3).contiguous().transpose(2, 3)
    torch.testing.assert_close(
        OPERATIONS[name](other), OPERATIONS[name](x), rtol=1e-12, atol=1e-12, equal_nan=True
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_input_and_the_random_state_are_left_alone(name):
    x = activation()
    before, state = x.clone(), torch.get_rng_state()
    first, second = OPERATIONS[name](x), OPERATIONS[name](x)
    assert_same(x, before)
    assert_same(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_marking_leaves_the_global_state_alone(generator):
    state = torch.get_rng_state()
    nan_max_pool(activation(), 2, mode="aggressive", nan_probability=0.5, generator=generator)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_gradient_is_needed_and_none_is_kept(name):
    with torch.inference_mode():
        inside = OPERATIONS[name](activation())
    assert_same(inside.clone(), OPERATIONS[name](activation()))


@pytest.mark.cuda
@pytest.mark.parametrize(
    "name", ["conservative pool", "aggressive pool", "indices", "ties", "conservative unpool"]
)
def test_pooling_on_a_cuda_device(name):
    assert_same(OPERATIONS[name](activation().cuda()).cpu(), OPERATIONS[name](activation()))


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_convolution_on_a_cuda_device(dtype):
    x, weight = activation().to(dtype), WEIGHT.to(dtype)
    tolerance = (drawing.EXACT | drawing.COARSE)[dtype]
    for call in (nan_conv, nan_conv_transpose):
        found = call(x.cuda(), weight.cuda(), groups=2).cpu()
        expected = call(x, weight, groups=2)
        drawing.assert_matches(found, expected.double().numpy(), tolerance)
    skipped = skipped_windows(x.cuda(), 3, padding=1)
    assert torch.equal(skipped.cpu(), skipped_windows(x, 3, padding=1))


@pytest.mark.cuda
def test_an_index_outside_the_grid_is_refused_before_a_cuda_device_writes_it():
    values = torch.ones(1, 1, 1, 1, device="cuda")
    with pytest.raises(ValueError, match="outside the unpooled grid"):
        nan_max_unpool(values, torch.full_like(values, 4, dtype=torch.int64), 2)
