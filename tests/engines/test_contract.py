"""The contract of engines: what `nansparse.functional` says, from every engine that is registered."""

from __future__ import annotations

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nansparse import registry
from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.windows import convolution_windows
from tests.engines.drawing import Case, cases, exactly_at, plain_cases
from tests.engines.registered import NAMES
from tests.functional.drawing import COARSE, EXACT, as_array, assert_matches, values, with_nan

TOLERANCE = EXACT | COARSE
EXAMPLES = {torch.float32: 32, torch.float64: 18, torch.float16: 12, torch.bfloat16: 12}
engines = pytest.mark.parametrize("name", NAMES)
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])


class RefusedError(Exception):
    """An engine said why it cannot run a case."""


def attempt(engine: Engine, case: Case, device: str = "cpu") -> SparseActivation:
    """Run a case unless the engine gives reasons against it."""
    activation, convolution = case.for_engine(device)
    reasons = engine.unsupported_reasons(activation, convolution)
    if reasons:
        raise RefusedError("; ".join(reasons))
    before = activation.rows.clone()
    out = engine.run(activation, convolution)
    assert torch.equal(activation.rows.nan_to_num(7.0), before.nan_to_num(7.0)), "the input was changed"
    return out


def run(engine: Engine, case: Case, device: str = "cpu") -> SparseActivation:
    """Run a case, or skip the test with the engine's own words."""
    try:
        return attempt(engine, case, device)
    except RefusedError as refused:
        pytest.skip(str(refused))


def assert_holds(out: SparseActivation, case: Case) -> None:
    """The mask exactly, the values to rounding, and the form that the rest of the house relies on."""
    expected = case.expected()
    assert out.shape == tuple(expected.shape)
    assert out.rows.dtype == expected.dtype
    # Only groups can be skipped one by one.
    assert out.partial == bool(out.rows.isnan().any()) or case.options["groups"] > 1
    assert not out.partial or case.options["groups"] > 1
    assert torch.equal(out.sites.numbers, out.sites.numbers.sort().values)
    assert out.sites.coords.dtype == torch.int32
    assert_matches(out.to_dense().cpu().contiguous(), as_array(expected), TOLERANCE[expected.dtype])


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's own remark on even kernels
@engines
@pytest.mark.parametrize("dtype", EXAMPLES, ids=str)
@pytest.mark.parametrize("grouping", ["one group", "grouped", "depthwise"])
@pytest.mark.parametrize("transposed", [False, True], ids=["ordinary", "transposed"])
@devices
def test_an_engine_computes_the_definitions(name, dtype, grouping, transposed, device):
    engine = registry.get(name)
    family = {"transposed": transposed, "grouping": grouping, "dtype": dtype}
    reasons = [engine.unsupported_reasons(*case.for_engine(device)) for case in plain_cases(**family)]
    if all(reasons):
        pytest.skip("; ".join(sorted({reason for some in reasons for reason in some})))
    ran, refusals = [], set()

    @given(case=cases(**family))
    @settings(
        max_examples=min(EXAMPLES[dtype], settings.default.max_examples),
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    def check(case):
        try:
            out = attempt(engine, case, device)
        except RefusedError as refused:
            refusals.add(str(refused))
            return
        ran.append(case)
        assert_holds(out, case)

    check()
    if not ran:
        pytest.skip("; ".join(sorted(refusals)))


@engines
@pytest.mark.parametrize("whole_sites", [True, False], ids=["whole sites", "single cells"])
@pytest.mark.parametrize(
    ("threshold", "kernel", "channels"),
    [
        (0.5, (2, 2), 1),
        (0.5, (4, 1), 3),
        (0.1, (5, 2), 2),
        (0.35, (5, 4), 1),
        (0.57, (10, 10), 1),
        (1.0, (3, 3), 2),
    ],
)
@devices
def test_a_window_exactly_at_the_threshold_is_skipped(name, threshold, kernel, channels, whole_sites, device):
    x = exactly_at(threshold, kernel, channels, whole_sites=whole_sites)
    dtype = torch.float64 if device == "cpu" else torch.float32
    weight = values(1, (2, channels, *kernel), dtype)
    case = Case(x.to(dtype), weight, None, {"groups": 1}, threshold, transposed=False)
    out = run(registry.get(name), case, device)
    assert out.sites.numbers.tolist() == [1]
    assert_holds(out, case)


@engines
@pytest.mark.parametrize("share", [0.0, 1.0], ids=["no site", "every site"])
@pytest.mark.parametrize("transposed", [False, True])
@devices
def test_no_site_and_every_site(name, share, transposed, device):
    x = values(0, (2, 3, 5, 4), torch.float32)
    x = x if share else x.fill_(torch.nan)
    case = Case(x, values(1, (3, 3, 3, 3), torch.float32), None, {"groups": 1, "padding": 1}, 0.3, transposed)
    out = run(registry.get(name), case, device)
    assert len(out.sites) == (2 * 5 * 4 if share else 0)
    assert_holds(out, case)


@engines
@pytest.mark.parametrize("channels", [1, 3, 16])
@devices
def test_where_no_site_is_the_rim_is_kept_for_its_padding(name, channels, device):
    x = torch.full((2, channels, 5, 4), torch.nan)
    weight, bias = values(1, (3, channels, 3, 3), torch.float32), values(2, (3,), torch.float32)
    case = Case(x, weight, bias, {"groups": 1, "padding": 1}, 0.9, transposed=False)
    out = run(registry.get(name), case, device)
    assert len(out.sites) == 2 * (5 * 4 - 3 * 2)
    assert torch.equal(out.rows.cpu(), bias.expand_as(out.rows))
    assert_holds(out, case)


@engines
def test_padding_counts_in_the_denominator(name):
    """One real cell of nine in the corner, five of them padding: 3/9 is under 0.5, 3/4 would not be."""
    x = torch.full((1, 1, 2, 2), torch.nan)
    x[..., 0, 0] = 3.0
    case = Case(x, torch.ones(1, 1, 3, 3), None, {"groups": 1, "padding": 1}, 0.5, transposed=False)
    out = run(registry.get(name), case)
    assert len(out.sites) == 4
    # The mean of the six real cells is 3/6; three cells take it.
    torch.testing.assert_close(out.rows, torch.full((4, 1), 3.0 + 3 * 0.5))


@engines
@devices
def test_infinities_are_values_and_stay(name, device):
    x = torch.ones(1, 1, 3, 3)
    x[..., 0, 0], x[..., 2, 2] = torch.inf, torch.nan
    case = Case(x, torch.ones(1, 1, 1, 1), None, {"groups": 1}, 0.5, transposed=False)
    out = run(registry.get(name), case, device)
    assert len(out.sites) == 8
    assert out.rows.isinf().sum() == 1


@engines
@pytest.mark.parametrize("pattern", ["sites", "few"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("grid", [(5, 7), (1, 6), (3, 4, 5), (1, 1, 4)], ids=str)
def test_one_sample_of_few_channels(name, grid, channels, pattern):
    """torch may answer in NCHW, whose columns of channels are no rows in memory."""
    x = with_nan(values(0, (1, channels, *grid), torch.float32), pattern, 1)
    weight, bias = (values(2, shape, torch.float32) for shape in ((3, channels, *[3] * len(grid)), (3,)))
    case = Case(x, weight, bias, {"groups": 1, "padding": 1}, 0.5, transposed=False)
    assert_holds(run(registry.get(name), case), case)


@engines
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("grid", [(1, 6), (2, 1, 7)], ids=str)
def test_windows_that_end_before_the_first_cell(name, grid, dtype):
    """Padding, and a stride that leaves the whole axis over."""
    x = with_nan(values(0, (1, 2, *grid), dtype), "sites", 1)
    weight, bias = values(1, (3, 2, *[1] * len(grid)), dtype), values(2, (3,), dtype)
    case = Case(x, weight, bias, {"groups": 1, "stride": 5, "padding": 2}, 0.5, transposed=False)
    assert_holds(run(registry.get(name), case), case)


@engines
@given(seed=st.integers(0, 999))
@settings(max_examples=8)
def test_batch_mates_are_independent(name, seed):
    """Batch 1 four times equals batch 4."""
    x = with_nan(values(seed, (4, 3, 6, 5), torch.float32), ("half", "sites", "few")[seed % 3], seed)
    weight = values(seed + 1, (4, 3, 3, 3), torch.float32)
    together = Case(x, weight, None, {"groups": 1, "padding": 1}, 0.5, transposed=False)
    whole = run(registry.get(name), together).to_dense()
    for sample in range(4):
        alone = run(
            registry.get(name), Case(x[sample : sample + 1], weight, None, together.options, 0.5, False)
        )
        assert_matches(whole[sample : sample + 1].contiguous(), alone.to_dense().numpy(), 1e-6)


@engines
@devices
def test_the_same_input_twice_gives_the_same_bits(name, device):
    x = with_nan(values(3, (1, 16, 24, 24), torch.float32), "sites", 4)
    case = Case(x, values(5, (16, 16, 3, 3), torch.float32), None, {"groups": 1, "padding": 1}, 0.5, False)
    first, second = (run(registry.get(name), case, device).to_dense(0.0) for _ in range(2))
    assert torch.equal(first, second)


@engines
def test_two_convolutions_on_one_set_of_sites_do_not_share_what_differs(name):
    """Plans are kept with the sites: another kernel, stride, threshold or partial row is another plan."""
    x = with_nan(values(0, (1, 4, 9, 8), torch.float32), "sites", 1)
    activation = SparseActivation.from_dense(x)
    engine, ran, refusals = registry.get(name), 0, set()
    for kernel, stride, threshold in (((3, 3), 1, 0.5), ((3, 3), 2, 0.5), ((1, 3), 1, 0.5), ((3, 3), 1, 1.0)):
        windows = convolution_windows((9, 8), kernel, stride)
        weight = values(7, (2, 4, *kernel), torch.float32)
        convolution = Convolution(weight, None, windows, 1, threshold)
        if reasons := engine.unsupported_reasons(activation, convolution):
            refusals.update(reasons)
            continue
        out = engine.run(activation, convolution)
        case = Case(x, weight, None, {"stride": stride, "groups": 1}, threshold, transposed=False)
        assert_holds(out, case)
        ran += 1
    if ran < 2:
        pytest.skip("; ".join(sorted(refusals)))
    holed = activation.rows.clone()
    holed[::2, :3] = torch.nan
    partial = SparseActivation(activation.sites, holed, partial=True)
    windows = convolution_windows((9, 8), (3, 3), 1)
    weight = values(7, (2, 4, 3, 3), torch.float32)
    case = Case(partial.to_dense(), weight, None, {"groups": 1}, 0.5, transposed=False)
    convolution = Convolution(weight, None, windows, 1, 0.5)
    if not engine.unsupported_reasons(partial, convolution):
        assert_holds(engine.run(partial, convolution), case)


@engines
def test_a_weight_changed_in_place_is_seen(name):
    x, weight = values(0, (1, 4, 6, 6), torch.float32), values(1, (3, 4, 3, 3), torch.float32)
    case = Case(x, weight, None, {"groups": 1}, 0.5, transposed=False)
    run(registry.get(name), case)
    case.weight.data.mul_(-2.0).add_(1.0)
    assert_holds(run(registry.get(name), case), case)


@engines
def test_as_many_threads_as_the_caller_likes(name):
    """Rows enough for every thread of a library, and calls from several threads at once."""
    x = with_nan(values(3, (1, 16, 96, 96), torch.float32), "sites", 4)
    case = Case(x, values(5, (16, 16, 3, 3), torch.float32), None, {"groups": 1, "padding": 1}, 0.9, False)
    engine, before = registry.get(name), torch.get_num_threads()
    expected = run(registry.get("dense"), case).to_dense()
    run(engine, case)  # or skip here, not in a thread
    try:
        torch.set_num_threads(4)
        for _ in range(2):
            torch.testing.assert_close(
                run(engine, case).to_dense(), expected, rtol=1e-4, atol=1e-3, equal_nan=True
            )
        with ThreadPoolExecutor(3) as pool:
            outs = list(pool.map(lambda _: run(engine, case).to_dense(), range(6)))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    for out in outs:
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-3, equal_nan=True)


@engines
def test_inference_mode_and_a_caller_who_leaves_it(name):
    """What is kept for a set of sites in inference mode serves a call outside of it."""
    activation, convolution = Case(
        with_nan(values(3, (1, 4, 9, 9), torch.float32), "sites", 4),
        values(5, (4, 4, 3, 3), torch.float32),
        None,
        {"groups": 1},
        0.5,
        False,
    ).for_engine()
    engine = registry.get(name)
    if reasons := engine.unsupported_reasons(activation, convolution):
        pytest.skip("; ".join(reasons))
    with torch.inference_mode():
        inside = engine.run(activation, convolution).rows
    assert torch.equal(inside, engine.run(activation, convolution).rows)


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@engines
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs /proc to read the memory of a process"
)
def test_sets_of_sites_come_and_go_and_memory_stays(name):
    """Each call has sites of its own; what was worked out for them is a few megabytes."""
    engine = registry.get(name)
    generator = torch.Generator().manual_seed(0)
    weight, sizes, gone = torch.randn(8, 8, 3, 3, generator=generator), [], []
    for turn in range(40):
        x = torch.rand(1, 8, 160, 160, generator=generator)
        x = x.masked_fill(torch.rand(1, 1, 160, 160, generator=generator) < 0.3, torch.nan)
        case = Case(x, weight, None, {"groups": 1, "padding": 1}, 0.5, transposed=False)
        activation, convolution = case.for_engine()
        if reasons := engine.unsupported_reasons(activation, convolution):
            pytest.skip("; ".join(reasons))
        engine.run(activation, convolution)
        gone.append(weakref.ref(activation.sites))
        del activation
        if turn % 10 == 9:
            gc.collect()
            sizes.append(resident_bytes())
    assert not any(ref() for ref in gone)
    assert sizes[-1] - sizes[0] < 20e6, [size / 1e6 for size in sizes]
