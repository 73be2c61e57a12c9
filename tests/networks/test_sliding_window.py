"""MONAI's sliding window around an enabled network, and MetaTensor in and out."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer, sliding_window_inference
from torch import Tensor, nn

import nansparse
from nansparse import Policy
from tests.networks.nets import build
from tests.oracle import run_by_definition

AFFINE = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=torch.float64))


def head() -> MetaTensor:
    x = torch.zeros(1, 1, 64, 36, 32, dtype=torch.float64)
    x[..., 8:24, 8:28, 8:24] = 0.5 + torch.rand(16, 20, 16, generator=torch.Generator().manual_seed(0))
    return MetaTensor(x, affine=AFFINE, meta={"filename_or_obj": "head.nii"})


class ByDefinition(nn.Module):
    """The same network by the definitions, NaN replaced as at the exit of a run."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return run_by_definition(self.model, Policy(), x.as_subclass(Tensor)).nan_to_num(0.0)


@pytest.mark.parametrize("mode", ["constant", "gaussian"])
def test_windows_of_an_enabled_network_are_those_of_the_definitions(mode: str) -> None:
    model, x = build("UNet, residual", 3), nansparse.mask_background(head(), margin=2)
    infer = SlidingWindowInferer(roi_size=(32, 32, 32), sw_batch_size=2, overlap=0.5, mode=mode)
    with torch.inference_mode():
        expected = infer(x, ByDefinition(model))
        with nansparse.enable(model) as run:
            found = infer(x, model)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert run.windows_skipped / run.windows > 0.6
    assert run.densified == 0


def test_metatensor_in_and_out() -> None:
    model, x = build("UNet", 3), head()[..., :32, :32, :32]
    marked = nansparse.mask_background(x)
    assert isinstance(marked, MetaTensor)
    assert torch.equal(marked.affine, x.affine)
    assert bool(marked.isnan().any())
    assert not bool(x.isnan().any())
    with torch.inference_mode(), nansparse.enable(model) as run:
        out = model(marked)
        slid = sliding_window_inference(marked, (32, 32, 32), 1, model)
    assert run.windows_skipped
    for result in (out, slid):
        assert isinstance(result, MetaTensor)
        assert torch.equal(result.affine, x.affine)
        assert result.meta["filename_or_obj"] == "head.nii"
    # MONAI sums windows in single precision.
    torch.testing.assert_close(out, slid, check_dtype=False, rtol=1e-5, atol=1e-5)


def test_a_window_of_nothing_but_background_gives_the_output_value_and_costs_its_rim_only() -> None:
    model = build("UNet", 3)
    x = nansparse.mask_background(torch.zeros(1, 1, 32, 32, 32, dtype=torch.float64))
    with torch.inference_mode(), nansparse.enable(model, output_nan=-1.0) as run:
        out = model(x)
    assert bool((out[..., 4:-4, 4:-4, 4:-4] == -1).all())
    # Padding counts as real zeros: along edges of the volume, windows are mostly real.
    assert 0.85 < run.windows_skipped / run.windows < 1
