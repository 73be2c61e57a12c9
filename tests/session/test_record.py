"""What a run says about itself: counts, tables, advice, explanations."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nansparse
from nansparse import NothingToDoWarning, Policy, RunRecord
from nansparse.functional import skipped_windows
from tests.oracle import ByDefinition
from tests.session.nets import NETS, SegNet, Shared, UNet, image, image_for, seeded


class Counting(ByDefinition):
    """Counts the skipped windows of every convolution, independently of the engines."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self.found: list[tuple[int, int, int, int]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs)
        if func in (F.conv2d, F.conv3d):
            names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
            given = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
            given |= dict(zip(names, args, strict=False)) | (kwargs or {})
            weight, groups = given["weight"], given["groups"]
            places = [given[name] for name in names[3:]]
            skipped = skipped_windows(
                given["input"], weight.shape[2:], *places, threshold=self.policy.threshold
            )
            per_window = weight.numel() // groups
            self.found.append((skipped.numel(), int(skipped.sum()), per_window * skipped.numel(), groups))
        return out


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("name", ["SegNet", "shared modules", "3D U-Net"])
def test_windows_and_multiply_adds_are_counted_as_the_definitions_skip_them(name, background):
    model, x = seeded(NETS[name]).double(), image_for(name, dtype=torch.float64)
    x = x.masked_fill(x == 0, torch.nan) if background else x
    policy = Policy()
    counting = Counting(policy)
    with torch.no_grad(), counting:
        model(x)
    with nansparse.enable(model) as record:
        model(x)
    assert record.windows == sum(f[0] for f in counting.found)
    assert record.windows_skipped == sum(f[1] for f in counting.found) > 0
    assert record.macs == sum(f[2] for f in counting.found)
    expected = sum(skipped * (macs // windows) for windows, skipped, macs, _ in counting.found)
    assert record.macs_skipped == expected


def test_a_transposed_convolution_counts_the_cells_it_meets():
    """Stride 2, kernel 3, a row of two cells, three channels in and two out."""
    layer = nn.ConvTranspose2d(3, 2, (1, 3), stride=(1, 2)).eval()
    x = torch.ones(1, 3, 1, 2)
    x[..., 1] = torch.nan
    with nansparse.enable(layer, threshold=1.0, output_nan="keep") as record:
        out = layer(x)
    # Positions of the kernel that fall outside the grid are cells too, as padding is.
    cells = [2, 1, 2, 1, 2]
    skipped = out[0, 0, 0].isnan().tolist()
    assert record.windows == 5
    assert record.windows_skipped == sum(skipped)
    assert record.macs == sum(cells) * 3 * 2
    assert record.macs_skipped == sum(n for n, s in zip(cells, skipped, strict=True) if s) * 6


def test_a_linear_head_counts_its_vectors():
    layer = nn.Linear(4, 3).eval()
    x = torch.ones(5, 4)
    x[:2] = torch.nan
    x[2, 0] = torch.nan
    with nansparse.enable(layer) as record:
        layer(x)
    assert (record.windows, record.windows_skipped) == (5, 2)
    assert (record.macs, record.macs_skipped) == (5 * 12, 2 * 12)


def test_everything_is_json_and_names_the_layers():
    model = seeded(Shared)
    with nansparse.enable(model, threshold=0.25) as record:
        model(image())
        model(image())
    told = json.loads(json.dumps(record.to_dict()))
    assert told["forwards"] == 2
    assert told["marked"] is True
    assert told["policy"]["threshold"] == 0.25
    assert told["torch"] == torch.__version__
    layers = {(layer["layer"], layer["operation"]): layer for layer in told["layers"]}
    assert layers["first", "conv2d"]["calls"] == 2
    assert sum(entry["calls"] for entry in told["layers"] if entry["layer"] == "shared") == 4
    assert ("unpool", "max_unpool2d") in layers
    assert told["windows_skipped"] == sum(e["windows_skipped"] for e in told["layers"] if e["macs"])
    assert layers["depthwise", "conv2d"]["windows"] == 2 * 2 * 16 * 32 * 8


def test_the_table_names_every_layer_and_adds_up():
    model = seeded(SegNet)
    with nansparse.enable(model) as record:
        model(image())
    lines = record.summary().splitlines()
    assert lines[0].split()[:4] == ["layer", "operation", "engine", "calls"]
    for name in ("first", "second", "third", "last"):
        assert any(line.startswith(name) for line in lines)
    share = 100 * record.windows_skipped / record.windows
    assert f"{share:.1f} % of the convolution windows" in lines[-1]


def test_a_fallback_is_on_record():
    class Odd(SegNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).pow(2)

    model = seeded(Odd)
    with nansparse.enable(model) as record:
        model(image())
    (layer,) = [layer for layer in record.layers if layer.densified]
    assert (layer.operation, layer.layer, layer.engine) == ("pow", "", "dense (untaught)")
    assert record.densified == 1
    text = nansparse.explain(model, image())
    assert "pow in (model), 1x" in text
    assert "needed a dense tensor" not in text


def test_explain_without_fallback():
    text = nansparse.explain(seeded(SegNet), image(), policy=Policy(threshold=1.0))
    assert "No operation needed a dense tensor while there was NaN." in text
    assert "max_unpool2d" in text


def test_explain_says_in_its_text_what_would_be_a_warning():
    model = nn.Sequential(nn.Conv2d(1, 2, 3)).eval()
    assert "nothing to do" in nansparse.explain(model, image())
    assert type(model) is nn.Sequential


def test_an_engine_that_had_to_be_replaced_says_why():
    model = seeded(Shared)
    with nansparse.enable(model, engine="gather") as record:
        model(image())
    (layer,) = [layer for layer in record.layers if layer.layer == "depthwise"]
    assert layer.engine == "dense"
    assert layer.notes == ["gather: groups=8: gather runs groups=1"]
    assert "gather runs groups=1" in record.summary()


def run_with_warning(model: nn.Module, x: Tensor, match: str, **options: object) -> RunRecord:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with nansparse.enable(model, **options) as record:
            model(x)
    assert {warning.category for warning in caught} == {NothingToDoWarning}
    told = [str(warning.message) for warning in caught]
    assert "nothing to do: no NaN was marked" in told[0]
    assert any(match in sentence for sentence in told)
    assert [f"nansparse: {line}" for line in record.advice()] == told
    return record


def test_nothing_to_do_without_pooling():
    run_with_warning(nn.Sequential(nn.Conv2d(1, 2, 3)).eval(), image(), "The model has no max pooling")


def test_nothing_to_do_without_ties():
    x = torch.rand(1, 1, 16, 32, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2)).eval()
    run_with_warning(net, x, "pooling windows have no ties", mode="aggressive")


def test_conservative_mode_gains_nothing_without_unpooling():
    """And nobody looked for ties, so nothing is said about them."""
    record = run_with_warning(seeded(UNet), image(), "only mode='aggressive' or NaN at the input")
    assert "have no ties" not in record.summary()


def test_a_run_that_marks_says_nothing():
    model, x = seeded(SegNet), image()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with nansparse.enable(model):
            model(x)


def test_a_block_in_which_the_model_never_ran_says_so():
    model = seeded(SegNet)
    with pytest.warns(NothingToDoWarning, match="never called"), nansparse.enable(model):
        model.first(image())


def test_an_error_is_not_followed_by_advice():
    model = seeded(UNet)
    with pytest.raises(ValueError, match="mine"), nansparse.enable(model):
        raise ValueError("mine")
