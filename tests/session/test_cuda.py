"""Whole models on a GPU: what the definitions give there, from every engine, in every precision."""

from __future__ import annotations

import pytest
import torch

import nansparse
from nansparse import Policy
from tests.engines.registered import NAMES, usable
from tests.oracle import run_by_definition
from tests.session.nets import NETS, image, image_for, seeded

pytestmark = pytest.mark.cuda
NO_UNPOOLING = ("U-Net", "classifier")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def assert_by_definition(name, dtype, **options):
    """Same mask, same values relative to the largest; which engines ran."""
    model = seeded(NETS[name]).to("cuda", dtype)
    x = image_for(name, dtype=dtype).cuda()
    x = x.masked_fill(x == 0, torch.nan) if name in NO_UNPOOLING else x
    with nansparse.enable(model, output_nan="keep", **options) as record:
        found = model(x).detach()
    expected = run_by_definition(model, Policy(**options), x)
    assert found.device == x.device
    assert torch.equal(found.isnan(), expected.isnan())
    scale = float(expected.nan_to_num(0.0).abs().max()) or 1.0
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=TOLERANCE[dtype], equal_nan=True)
    assert record.windows_skipped > 0
    return {layer.engine for layer in record.layers if layer.operation.startswith("conv")}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize("name", NETS)
def test_a_model_equals_its_definition(name, mode, dtype):
    assert_by_definition(name, dtype, mode=mode)


@pytest.mark.parametrize("engine", [name for name in NAMES if name != "dense"])
@pytest.mark.parametrize("name", ["SegNet", "3D U-Net"])
def test_every_engine_gives_the_same(name, engine):
    usable(engine, "cuda")
    ran = assert_by_definition(name, torch.float32, engine=engine)
    assert engine in ran


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", ["half model", "autocast"])
def test_half_precision(way, dtype):
    """Rounding decides over ties, so a few cells differ from float32."""
    model, x = seeded(NETS["FastSurferCNN"]).cuda(), image(2, 64, 64).cuda()
    with torch.inference_mode(), nansparse.enable(model, output_nan="keep"):
        exact = model(x)
    model, x = (model.to(dtype), x.to(dtype)) if way == "half model" else (model, x)
    cast = torch.autocast("cuda", dtype, enabled=way == "autocast")
    with torch.inference_mode(), cast, nansparse.enable(model, output_nan="keep") as record:
        found = model(x)
    assert found.dtype == dtype
    assert record.windows_skipped > 0
    scale = float(exact.nan_to_num().abs().max())
    same = ((found.float() - exact).abs() <= 0.1 * scale) | (found.isnan() & exact.isnan())
    assert same.double().mean() > 0.95


def test_marking_when_it_pays_settles_on_a_gpu():
    model, x = seeded(NETS["FastSurferCNN"]).cuda(), image(2, 64, 64).cuda()
    with torch.inference_mode(), nansparse.enable(model, marking="when-it-pays") as record:
        for _ in range(30):
            out = model(x)
    assert out.isfinite().all()
    assert record.trials is not None
    assert record.summary()


@pytest.mark.parametrize("margin", [0, 3])
def test_the_background_is_found_on_a_gpu_too(margin):
    x = image(2, 32, 40)
    found = nansparse.mask_background(x.cuda(), margin=margin)
    assert torch.equal(found.isnan().cpu(), nansparse.mask_background(x, margin=margin).isnan())
