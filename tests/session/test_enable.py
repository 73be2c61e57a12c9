"""Whole models under `enable` against the definitions run one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import nansparse
from nansparse import Policy, RunRecord
from tests.engines.registered import NAMES, usable
from tests.oracle import run_by_definition
from tests.session.nets import NETS, SegNet, UNet, image, image_for, seeded

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
# Conservative pooling marks at unpooling, and these have none.
NO_UNPOOLING = ("U-Net", "classifier")


def run(model: nn.Module, x: Tensor, **options: object) -> tuple[Tensor, RunRecord]:
    """Run a model under nansparse; NaN stays in its output."""
    with nansparse.enable(model, output_nan="keep", **options) as record:
        out = model(x)
    return out.detach(), record


def assert_by_definition(model: nn.Module, x: Tensor, **options: object) -> RunRecord:
    """Same mask, same values relative to the largest."""
    found, record = run(model, x, **options)
    expected = run_by_definition(model, Policy(**options), x)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert torch.equal(found.isnan(), expected.isnan())
    scale = float(expected.nan_to_num(0.0).abs().max()) or 1.0
    torch.testing.assert_close(
        found / scale, expected / scale, rtol=0, atol=TOLERANCE[x.dtype], equal_nan=True
    )
    return record


@pytest.mark.parametrize(
    ("threshold", "dtype"),
    [(0.25, torch.float64), (0.5, torch.float64), (0.5, torch.float32), (1.0, torch.float64)],
    ids=str,
)
@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize("name", NETS)
def test_a_model_equals_its_definition(name, mode, threshold, dtype):
    if mode == "conservative" and name in NO_UNPOOLING:
        pytest.skip("conservative mode has nothing to mark here (tests/session/test_record.py)")
    model = seeded(NETS[name]).to(dtype)
    record = assert_by_definition(model, image_for(name, dtype=dtype), mode=mode, threshold=threshold)
    assert record.marked
    assert record.windows_skipped > 0 or threshold == 1.0


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize("name", [name for name in NETS if name not in NO_UNPOOLING])
def test_nan_at_the_input(name, mode):
    model, x = seeded(NETS[name]).double(), image_for(name, dtype=torch.float64)
    record = assert_by_definition(model, x.masked_fill(x == 0, torch.nan), mode=mode)
    assert record.windows_skipped > 0.2 * record.windows


@pytest.mark.parametrize("engine", [*NAMES, "auto"])
@pytest.mark.parametrize("name", ["SegNet", "shared modules"])
def test_every_engine_gives_the_same(name, engine):
    if engine != "auto":
        usable(engine)
    x = image_for(name)
    # NaN at the input gives the first layer whole sites, unpooling gives others NaN in single channels: there
    # are engines that run one kind only.
    record = assert_by_definition(seeded(NETS[name]), x.masked_fill(x == 0, torch.nan), engine=engine)
    ran = {layer.engine for layer in record.layers if layer.operation.startswith("conv")}
    assert engine == "auto" or engine in ran


class PoolsFirst(nn.Module):
    """Pools its input, so that a test decides which cells tie."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.last = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 2, 1)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x, indices = self.pool(x)
        return self.last(self.unpool(self.low(x), indices))


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize(
    ("option", "values"), [("max_ties", (1, 2, 3)), ("epsilon", (0.0, 1e-3, 0.3))], ids=["ties", "epsilon"]
)
def test_the_tie_rule_is_passed_on(option, values, mode):
    """Windows of two, three and four ties, exact ones or rough ones: each value marks others."""
    x = (image().double() * 4).round() / 4
    x += image(seed=1).double() * 1e-4 if option == "epsilon" else 0.0
    shares = set()
    for value in values:
        options = {"mode": mode, "threshold": 0.3, option: value}
        model = seeded(PoolsFirst).double()
        assert_by_definition(model, x, **options)
        shares.add(float(run(model, x, **options)[0].isnan().double().mean()))
    assert len(shares) == len(values)


GEOMETRIES = {
    "odd sizes": (SegNet, (31, 45)),
    "one row": (lambda: SegNet((1, 2)), (31, 44)),
    "one column": (lambda: SegNet((2, 1)), (32, 45)),
    "ceil mode": (lambda: SegNet(2, ceil_mode=True), (31, 45)),
    "overlapping 3x3/2 with padding": (lambda: SegNet(3, stride=2, padding=1), (32, 46)),
    "overlapping 3x3/2": (lambda: SegNet(3, stride=2), (33, 47)),
    "stride larger than the window": (lambda: SegNet(2, stride=3), (32, 47)),
    "16 cells": (lambda: SegNet(4), (32, 48)),
    "dilated": (lambda: SegNet(2, stride=2, dilation=2), (33, 47)),
}


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_pooling_of_any_geometry(geometry, mode):
    make, size = GEOMETRIES[geometry]
    record = assert_by_definition(seeded(make).double(), image(2, *size, dtype=torch.float64), mode=mode)
    assert record.marked


@pytest.mark.parametrize("name", [name for name in NETS if name not in NO_UNPOOLING])
def test_one_sample_four_times_is_a_batch_of_four(name):
    model = seeded(NETS[name]).double()
    x = torch.cat([image_for(name, seed=seed, dtype=torch.float64) for seed in (0, 1)])
    whole, _ = run(model, x)
    alone = torch.cat([run(model, sample[None])[0] for sample in x])
    assert torch.equal(whole.isnan(), alone.isnan())
    torch.testing.assert_close(whole, alone, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("name", ["FastSurferCNN", "SegNet", "3D U-Net"])
def test_channels_last_goes_in_and_comes_out(name):
    layout = torch.channels_last_3d if name == "3D U-Net" else torch.channels_last
    model = seeded(NETS[name]).to(memory_format=layout)
    x = image_for(name)
    record = assert_by_definition(model, x.to(memory_format=layout))
    assert record.marked
    out, _ = run(model, x.to(memory_format=layout))
    assert out.is_contiguous(memory_format=layout)
    plain, _ = run(seeded(NETS[name]), x)
    assert plain.is_contiguous()


INPUTS = {
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda x: torch.cat([x, x], 3)[..., : x.shape[3]],
    "strided": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "expanded": lambda x: x[:1].expand(3, -1, -1, -1),
}


@pytest.mark.parametrize("layout", INPUTS)
def test_inputs_that_are_not_contiguous(layout):
    x = INPUTS[layout](image())
    before = x.clone()
    assert_by_definition(seeded(SegNet), x)
    assert torch.equal(x, before)


def test_aggressive_marking_with_a_probability_draws_from_the_generator_only():
    model, x = seeded(UNet), image()
    state = torch.random.get_rng_state()

    def once(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return run(model, x, mode="aggressive", nan_probability=0.5, generator=generator)[0]

    first, again, other = once(1), once(1), once(2)
    assert torch.equal(first.nan_to_num(7.0), again.nan_to_num(7.0))
    assert not torch.equal(first.isnan(), other.isnan())
    share = float(first.isnan().float().mean())
    always = float(run(model, x, mode="aggressive")[0].isnan().float().mean())
    assert 0 < share < always
    expected = run_by_definition(
        model, Policy("aggressive", nan_probability=0.5, generator=torch.Generator().manual_seed(1)), x
    )
    assert torch.equal(first.isnan(), expected.isnan())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_input_twice_gives_the_same_bits():
    model, x = seeded(NETS["FastSurferCNN"]), image()
    first, second = (run(model, x)[0] for _ in range(2))
    assert torch.equal(first.nan_to_num(7.0), second.nan_to_num(7.0))


@pytest.mark.parametrize("name", NETS)
def test_a_batch_of_none(name):
    model, x = seeded(NETS[name]), image_for(name)[:0]
    with pytest.warns(nansparse.NothingToDoWarning):
        found, _ = run(model, x, mode="aggressive")
    with torch.no_grad():
        assert torch.equal(found, model(x))


@pytest.mark.parametrize("size", [(1, 1), (1, 32), (2, 2)], ids=str)
@pytest.mark.parametrize("real", [True, False])
def test_axes_of_one_and_images_smaller_than_a_window(size, real):
    x = torch.full((2, 1, *size), torch.nan)
    if real:
        x[0, :, 0, 0] = 1.0
    model = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 2, 3, padding=1)))
    assert_by_definition(model, x)
