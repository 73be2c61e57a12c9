"""`statistics_nan`: a NaN cell counts as a number in statistics over space, and reports say so."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import nansparse
from nansparse.handlers.normalization import REAL_ONLY
from tests.functional.drawing import values
from tests.handlers.caught import assert_same, caught, holed

SHAPES = ((2, 6, 5, 4), (2, 6, 3, 4, 2))
PATTERNS = ("sites", "half", "channels", "one sample", "all")
WEIGHT, BIAS = values(1, (6,), torch.float32), values(2, (6,), torch.float32)
OPERATIONS = {
    "instance": lambda x: F.instance_norm(x, weight=WEIGHT, bias=BIAS),
    "group": lambda x: F.group_norm(x, 2, WEIGHT, BIAS),
    "batch": lambda x: F.batch_norm(x, None, None, WEIGHT, BIAS, training=True),
    "layer": lambda x: F.layer_norm(x, x.shape[1:]),
    "torch.instance": lambda x: torch.instance_norm(x, WEIGHT, BIAS, None, None, True, 0.1, 1e-5, False),
    "torch.group": lambda x: torch.group_norm(x, 2, WEIGHT, bias=BIAS),
    "torch.batch": lambda x: torch.batch_norm(x, WEIGHT, BIAS, None, None, True, 0.1, 1e-5, False),
    "torch.layer": lambda x: torch.layer_norm(x, x.shape[1:]),
}
AVERAGES = {
    "adaptive": lambda x: (F.adaptive_avg_pool2d if x.dim() == 4 else F.adaptive_avg_pool3d)(x, 1),
    "adaptive 2": lambda x: (F.adaptive_avg_pool2d if x.dim() == 4 else F.adaptive_avg_pool3d)(x, 2),
    "window": lambda x: (F.avg_pool2d if x.dim() == 4 else F.avg_pool3d)(x, tuple(x.shape[2:])),
    "mean": lambda x: x.mean(tuple(range(2, x.dim()))),
    "mean of one axis": lambda x: x.mean(2, keepdim=True),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("level", [0.0, -1.5])
def test_norms_count_nan_as_a_number(shape: tuple[int, ...], pattern: str, name: str, level: float) -> None:
    x = holed(3, shape, pattern)
    dense = OPERATIONS[name](x.nan_to_num(level)).masked_fill(x.isnan(), torch.nan)
    assert_same(caught(OPERATIONS[name], x, statistics_nan=level)[0], dense, 2e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", AVERAGES)
def test_averages_count_nan_as_a_number(shape: tuple[int, ...], pattern: str, name: str) -> None:
    x = holed(4, shape, pattern)
    found, _ = caught(AVERAGES[name], x, statistics_nan=0.5)
    assert_same(found, AVERAGES[name](x.nan_to_num(0.5)), 1e-5)


def test_the_first_norm_sees_what_a_dense_run_sees() -> None:
    """A convolution without bias of a black background is black, so counting 0 restores the statistics."""
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1, bias=False), nn.InstanceNorm3d(4)).eval()
    x = torch.zeros(1, 1, 20, 20, 20)
    x[..., 8:12, 8:12, 8:12] = holed(5, (4, 4, 4), "none") + 3
    marked = nansparse.mask_background(x, margin=2)
    with torch.no_grad():
        dense = model(x)
        with nansparse.enable(model, threshold=1.0, statistics_nan=0.0):
            counted = model(marked)
        with nansparse.enable(model, threshold=1.0):
            ignored = model(marked)
    inside = (slice(None), slice(None), *[slice(8, 12)] * 3)
    torch.testing.assert_close(counted[inside], dense[inside], rtol=1e-4, atol=1e-4)
    assert float((ignored[inside] - dense[inside]).abs().max()) > 0.1


def test_the_summary_and_explain_say_that_statistics_differ() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4)).eval()
    x = torch.rand(1, 1, 8, 8)
    x[..., :4] = torch.nan
    report = nansparse.explain(model, x)
    assert "2 normalization layer(s) (1, 2) took statistics over the real values only" in report
    assert "statistics_nan=<number>" in report
    assert report.count(REAL_ONLY) == 3
    counted = nansparse.explain(model, x, policy=nansparse.Policy(statistics_nan=0.0))
    assert REAL_ONLY not in counted
    assert counted.count("NaN counted as 0") == 2
    assert "statistics" not in nansparse.explain(model, x.nan_to_num(1.0))


@pytest.mark.parametrize("level", ["zero", torch.nan, True, None])
def test_mistakes_are_named(level: object) -> None:
    with pytest.raises(
        nansparse.InputError, match=r"statistics_nan \(a number or 'ignore'\) must be a finite number"
    ):
        nansparse.Policy(statistics_nan=level)  # type: ignore[arg-type]


def test_running_statistics_are_not_touched(generator: torch.Generator) -> None:
    norm = nn.InstanceNorm2d(3, track_running_stats=True).eval()
    x = torch.rand(1, 3, 4, 4, generator=generator)
    x[..., 0, 0] = torch.nan
    found, record = caught(norm, x, statistics_nan=5.0)
    assert_same(found, norm(x), 1e-5)
    assert all("counted" not in note for layer in record.layers for note in layer.notes)
