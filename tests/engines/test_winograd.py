"""Minimal filtering: the tiles, the fills, and that a window has nothing from what only its tile reads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nansparse.adapters import winograd as adapter
from nansparse.adapters.numba import NumbaEngine

from nansparse import registry
from nansparse.activation import SparseActivation
from nansparse.compiled import kernels_for, kernels_problem
from nansparse.compiled.filtering import list_tiles
from nansparse.convolution import Convolution
from nansparse.functional import nan_conv
from nansparse.plan import plan_windows
from nansparse.windows import convolution_windows
from tests.engines.drawing import Case, holed
from tests.functional.drawing import seeds, thresholds, values

pytestmark = pytest.mark.skipif(bool(kernels_problem()), reason=kernels_problem() or "-")


class ComputedAgainError(Exception):
    """Minimal filtering gave what cannot be used."""


def computed_again(*_):
    raise ComputedAgainError


def assert_computed(x, weight, bias, padding, threshold, *, laid_out=False):
    """Run the engine, and compare the mask exactly and the values to rounding."""
    case = Case(x, weight, bias, {"padding": padding, "groups": 1}, threshold, transposed=False)
    activation, convolution = case.for_engine()
    if laid_out and not activation.sites.is_complete and not activation.partial:
        rows = x.movedim(1, -1).reshape(-1, x.shape[1]).nan_to_num(5.0)
        activation = SparseActivation(activation.sites, rows, partial=False, laid_out=True)
    engine = registry.get("winograd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NumbaEngine, "run", computed_again)
        patch.setattr(adapter, "_mostly_partial", lambda *_: [])
        assert not engine.unsupported_reasons(activation, convolution)
        out = engine.run(activation, convolution)
    expected = nan_conv(x, weight, bias, padding=padding, threshold=threshold)
    found = out.to_dense()
    assert torch.equal(found.isnan(), expected.isnan())
    scale = float(expected.nan_to_num(0.0).abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-6 * max(scale, 1.0), equal_nan=True)
    return out


@given(data=st.data(), rank=st.sampled_from([2, 2, 3]), laid_out=st.booleans())
@settings(max_examples=150, deadline=None)
def test_drawn_convolutions_are_those_of_the_definitions(data, rank, laid_out):
    padding = data.draw(st.tuples(*[st.integers(0, 3)] * rank))
    most = 23 if rank == 2 else 9
    grid = tuple(data.draw(st.integers(max(1, 3 - 2 * p), most)) for p in padding)
    batch, channels = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 20))
    out, seed = data.draw(st.integers(1, 40)), data.draw(seeds)
    pattern = data.draw(st.sampled_from(["none", "one site", "sites", "all", "few", "mixed"]))
    x = values(seed, (batch, channels, *grid), torch.float32)
    if pattern != "none":
        x = x.fill_(torch.nan) if pattern == "all" else holed(x, pattern, seed)
    weight = values(seed + 1, (out, channels, *(3,) * rank), torch.float32)
    bias = values(seed + 2, (out,), torch.float32) if data.draw(st.booleans()) else None
    assert_computed(x, weight, bias, padding, data.draw(thresholds), laid_out=laid_out)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
def test_many_blocks_of_tiles(rank, share):
    """More tiles than a thread takes at a time; few windows to fill, and nearly all."""
    grid = (96, 101) if rank == 2 else (22, 23, 25)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 24, *grid, generator=generator)
    x = x.masked_fill(torch.rand(2, 1, *grid, generator=generator) < share, torch.nan)
    weight = torch.randn(33, 24, *(3,) * rank, generator=generator)
    assert_computed(x, weight, torch.randn(33, generator=generator), (1,) * rank, 0.5)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, 3e38], ids=str)
def test_what_is_not_finite_is_computed_again(value):
    """Cells are subtracted from each other: infinities would become NaN."""
    x = values(0, (1, 4, 8, 8), torch.float32)
    x[0, :, 3, 3], x[..., 6, 6] = value, torch.nan
    weight = values(1, (5, 4, 3, 3), torch.float32).abs() + 0.5
    with pytest.raises(ComputedAgainError):
        assert_computed(x, weight, None, 1, 0.5)
    convolution = Convolution(weight, None, convolution_windows((8, 8), 3, 1, 1), 1, 0.5)
    found = registry.get("winograd").run(SparseActivation.from_dense(x), convolution).to_dense()
    expected = nan_conv(x, weight, None, padding=1, threshold=0.5)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.isinf(), expected.isinf())
    assert expected.isinf().any()
    near = torch.isclose(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert near[expected.abs() < 1e6].all()


def test_means_that_leave_float32_are_seen():
    """All products fit; the weight's sum over the channels, which the means are multiplied with, does not."""
    x = torch.full((1, 64, 8, 8), 1e-10)
    x[..., 4, 4] = torch.nan
    weight = torch.full((16, 64, 3, 3), 1e37)
    with pytest.raises(ComputedAgainError):
        assert_computed(x, weight, None, 1, 0.5)
    convolution = Convolution(weight, None, convolution_windows((8, 8), 3, 1, 1), 1, 0.5)
    found = registry.get("winograd").run(SparseActivation.from_dense(x), convolution).to_dense()
    expected = nan_conv(x, weight, None, padding=1, threshold=0.5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0, equal_nan=True)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("constant", ["everywhere", "along lines"])
def test_windows_of_a_uniform_region_give_the_same_bits(rank, constant):
    """Ties there are equal to the last bit, wherever in its tile a window lies."""
    generator = torch.Generator().manual_seed(0)
    line = torch.randn(1, 20, *(1,) * (rank - 1), 12 if constant == "along lines" else 1, generator=generator)
    x = line.expand(1, 20, *(12,) * rank).clone()
    x[(..., *(0,) * rank)] = torch.nan
    weight = torch.randn(24, 20, *(3,) * rank, generator=generator)
    convolution = Convolution(weight, None, convolution_windows((12,) * rank, 3, 1), 1, 0.5)
    out = registry.get("winograd").run(SparseActivation.from_dense(x), convolution).to_dense()
    inner = out[(..., *(slice(1, None),) * rank)]
    ends = (1,) * (rank - 1) + ((None,) if constant == "along lines" else (1,))
    first = inner[(..., *(slice(end) for end in ends))]
    assert torch.equal(inner, first.expand_as(inner))


@pytest.mark.parametrize("setting", ["autocast", "default dtype"])
def test_settings_of_torch_take_nothing_away(setting):
    x = values(0, (1, 8, 9, 9), torch.float32)
    x[..., 3:5, :] = torch.nan
    weight = values(1, (8, 8, 3, 3), torch.float32)
    convolution = Convolution(weight, None, convolution_windows((9, 9), 3, 1, 1), 1, 0.5)
    engine, activation = registry.get("winograd"), SparseActivation.from_dense(x)
    expected = engine.run(activation, convolution).rows
    try:
        torch.set_default_dtype(torch.float64 if setting == "default dtype" else torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=setting == "autocast"):
            found = engine.run(activation, convolution).rows
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "transposed"),
    [
        ((5, 5), 1, 1, False),
        ((3, 1), 1, 1, False),
        ((3, 3), 2, 1, False),
        ((3, 3), 1, 2, False),
        ((3, 3), 1, 1, True),
    ],
)
def test_other_geometries_are_refused(kernel, stride, dilation, transposed):
    case = Case(
        values(0, (1, 2, 9, 9), torch.float32),
        values(1, (2, 2, *kernel), torch.float32),
        None,
        {"stride": stride, "dilation": dilation, "groups": 1},
        0.5,
        transposed,
    )
    reasons = registry.get("winograd").unsupported_reasons(*case.for_engine())
    assert reasons == ["winograd runs 3 x 3 and 3 x 3 x 3 kernels with stride 1 and dilation 1"]


@pytest.mark.parametrize("rank", [2, 3])
def test_a_result_depends_on_the_cells_of_its_window_only(rank):
    """To the last bit, whatever else its tile reads: a row that is partly NaN may be left out."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 20, *(10,) * rank, generator=generator)
    changed = x.clone()
    changed[(..., *(5,) * rank)] = 1e30
    weight = torch.randn(24, 20, *(3,) * rank, generator=generator)
    convolution = Convolution(weight, None, convolution_windows((10,) * rank, 3, 1, 1), 1, 0.5)
    outs = [
        registry.get("winograd").run(SparseActivation.from_dense(y), convolution).to_dense()
        for y in (x, changed)
    ]
    near = torch.zeros((10,) * rank, dtype=torch.bool)
    near[(slice(4, 7),) * rank] = True
    assert torch.equal((outs[0] != outs[1]).any(1)[0], near)


@pytest.mark.parametrize("rank", [2, 3])
def test_rows_that_are_partly_nan_are_left_to_the_direct_product(rank):
    """Only the windows that read one, so that equal windows stay equal to the last bit."""
    x = torch.full((1, 6, *(12,) * rank), 0.3)
    x[(0, 2, *(5,) * rank)] = torch.nan
    x[(0, slice(None), *(1,) * rank)] = torch.nan
    weight = values(1, (8, 6, *(3,) * rank), torch.float32)
    out = assert_computed(x, weight, None, (1,) * rank, 0.5)
    activation = SparseActivation.from_dense(x)
    plan = plan_windows(activation, convolution_windows((12,) * rank, 3, 1, 1), 0.5)
    tiling = list_tiles(kernels_for(activation), activation, plan)
    reading = torch.zeros((12,) * rank, dtype=torch.bool)
    reading[(slice(4, 7),) * rank] = True
    assert torch.equal(plan.out.numbers[tiling.direct], reading.flatten().nonzero().flatten())
    assert (tiling.goals.ravel()[reading.flatten().numpy()] == len(plan.out)).all()
    inner = out.to_dense()[0][(slice(None), *(slice(7, 11),) * rank)].flatten(1)
    assert torch.equal(inner, inner[:, :1].expand_as(inner))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3])
def test_nan_in_many_rows_is_refused(share):
    x = torch.ones(1, 4, 24, 24)
    x[0, 1][torch.rand(24, 24, generator=torch.Generator().manual_seed(0)) < share] = torch.nan
    case = Case(x, values(1, (8, 4, 3, 3), torch.float32), None, {"groups": 1}, 0.5, transposed=False)
    reasons = registry.get("winograd").unsupported_reasons(*case.for_engine())
    assert reasons == (["winograd runs layers with few rows that are partly NaN"] if share > 0.1 else [])


def test_the_work_counted_is_that_of_the_tiles():
    """A quarter of the grid is there: a quarter of the tiles, and no more than the least work promises."""
    x = torch.full((1, 16, 16, 16), torch.nan)
    x[..., :8, :8] = 1.0
    windows = convolution_windows((16, 16), 3, 1, 1)
    convolution = Convolution(torch.ones(16, 16, 3, 3), None, windows, 1, 1e-3)
    activation = SparseActivation.from_dense(x)
    engine = registry.get("winograd")
    work = engine.workload(activation, convolution)
    kept = len(engine.run(activation, convolution).sites)
    assert kept == 7 * 7
    assert work.reads == 16 * 16
    least = engine.least_workload(kept, activation, convolution)
    assert all(a <= b for a, b in zip(least.amounts(), work.amounts(), strict=True))
