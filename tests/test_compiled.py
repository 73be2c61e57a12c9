"""The compiled loops say what plain torch says, and are not needed."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nansparse
from nansparse import plan as planning
from nansparse import unpooling
from nansparse.activation import SparseActivation
from nansparse.compiled import availability, kernels_for, kernels_problem
from nansparse.compiled.peaks import may_tie, peaks_of_rows
from nansparse.compiled.plans import rows_read
from nansparse.handlers.alignment import combined
from nansparse.library import Library
from nansparse.plan import WindowPlan
from nansparse.policy import Policy
from nansparse.sites import Sites
from nansparse.ties import find_peaks, tile_peaks, window_cells
from nansparse.unpooling import PoolMemory, Unpooled
from nansparse.windows import Windows, convolution_windows
from tests.session.nets import SegNet, image, seeded

pytestmark = pytest.mark.skipif(bool(kernels_problem()), reason=kernels_problem() or "-")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "_loaded", lambda: "taken away for the test")


def drawn(data: st.DataObject, rank: int, *, partial: bool, laid_out: bool) -> SparseActivation:
    """An activation of three channels with missing sites, NaN in single channels if partial."""
    grid = tuple(data.draw(st.integers(1, 7)) for _ in range(rank))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    x = torch.randn(data.draw(st.integers(1, 2)), 3, *grid, generator=generator).round(decimals=1)
    x[(torch.rand(x.shape[0], 1, *grid, generator=generator) < 0.4).expand_as(x)] = torch.nan
    if partial:
        x[torch.rand(x.shape, generator=generator) < 0.2] = torch.nan
    activation = SparseActivation.from_dense(x)
    if not laid_out:
        return activation.with_rows(activation.rows)
    rows = x.movedim(1, -1).reshape(-1, 3).clone()
    return SparseActivation(activation.sites, rows, activation.partial, laid_out=True)


def geometry(data: st.DataObject, grid: tuple[int, ...]) -> Windows:
    pick = lambda low, high: tuple(data.draw(st.integers(low, high)) for _ in grid)  # noqa: E731
    kernel, padding = pick(1, 3), pick(0, 2)
    kernel = tuple(min(k, g + 2 * p) for k, g, p in zip(kernel, grid, padding, strict=True))
    dilation = tuple(
        d if d * (k - 1) < g + 2 * p else 1
        for d, k, g, p in zip(pick(1, 2), kernel, grid, padding, strict=True)
    )
    return convolution_windows(grid, kernel, pick(1, 3), padding, dilation)


@given(data=st.data(), rank=st.sampled_from([2, 3]), partial=st.booleans(), laid_out=st.booleans())
@settings(max_examples=80)
def test_plans_are_those_of_torch(data, rank, partial, laid_out):
    activation = drawn(data, rank, partial=partial, laid_out=laid_out)
    windows = geometry(data, activation.sites.grid)
    threshold = data.draw(st.sampled_from([0.1, 0.5, 0.75, 1.0]))
    mine = WindowPlan(activation, windows, threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "kernels_for", lambda x: None)
        other = WindowPlan(activation, windows, threshold)
    assert torch.equal(mine.keep, other.keep)
    assert torch.equal(mine.out.numbers, other.out.numbers)
    assert (mine.out is activation.sites) == (other.out is activation.sites)
    assert mine.nan_cells.tolist() == other.nan_cells.tolist()
    assert mine.cells == other.cells
    assert mine.fills == len(other.filled)
    assert torch.equal(mine.taps[0].table, other.taps[0].table)


@given(data=st.data(), rank=st.sampled_from([2, 3]), partial=st.booleans(), laid_out=st.booleans())
@settings(max_examples=80)
def test_peaks_and_ties_are_those_of_torch(data, rank, partial, laid_out):
    activation = drawn(data, rank, partial=partial, laid_out=laid_out)
    grid = activation.sites.grid
    kernel = tuple(min(2, g) for g in grid)
    windows = convolution_windows(grid, kernel, kernel)
    policy = Policy(max_ties=data.draw(st.integers(1, 3)), epsilon=data.draw(st.sampled_from([1e-7, 0.2])))
    everywhere = Sites(None, activation.sites.batch, windows.out_grid, activation.device)
    rows_of = WindowPlan(activation, windows, 1.0)
    table = rows_of.taps[0].table
    kernels = kernels_for(activation.values)
    mine, some, nan, infinite = peaks_of_rows(kernels, activation.values, activation.places, table, policy)
    dense = activation.to_dense(-torch.inf).nan_to_num(-torch.inf, neginf=-torch.inf)
    cells = window_cells(dense.movedim(1, -1), windows)
    other = tile_peaks(cells, find_peaks(cells, policy.epsilon), policy.max_ties)
    kept = rows_of.out.numbers
    assert len(everywhere) == len(other.values)
    assert torch.equal(mine.values, other.values[kept])
    assert torch.equal(mine.codes, other.codes[kept])
    assert torch.equal(mine.unstable, other.unstable[kept])
    assert torch.equal(mine.winner, other.winner[kept])
    assert some == bool(mine.unstable.any())
    assert not infinite
    assert nan <= activation.partial


@given(data=st.data(), rank=st.sampled_from([2, 3]), partial=st.booleans(), laid_out=st.booleans())
@settings(max_examples=80)
def test_unpooling_is_that_of_torch(data, rank, partial, laid_out):
    values = drawn(data, rank, partial=partial, laid_out=laid_out)
    pooled = values.sites.grid
    grid = tuple(2 * p + data.draw(st.integers(0, 1)) for p in pooled)
    windows = Windows(grid, pooled, (2,) * rank, (2,) * rank, (0,) * rank, (1,) * rank)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    shape = (values.sites.total, 3)
    winner = (1 << torch.randint(0, 2**rank, shape, generator=generator)).to(torch.uint8)
    codes = torch.randint(0, 2 ** (2**rank), shape, generator=generator).to(torch.uint8)
    memory = PoolMemory(windows, values.sites.batch, winner, codes if data.draw(st.booleans()) else None)
    mine = Unpooled(values, memory).everywhere
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpooling, "kernels_for", lambda x: None)
        other = Unpooled(values, memory).everywhere
    assert torch.equal(mine.sites.numbers, other.sites.numbers)
    assert mine.partial == other.partial
    assert torch.equal(mine.rows.nan_to_num(9.0), other.rows.nan_to_num(9.0))


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_a_network_computes_the_same_without_the_loops(mode, request):
    model, x = seeded(SegNet), image()
    with torch.no_grad(), nansparse.enable(model, mode=mode) as run:
        mine = model(x)
    request.getfixturevalue("without")
    with torch.no_grad(), nansparse.enable(model, mode=mode) as other_run:
        other = model(x)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert run.windows_skipped == other_run.windows_skipped


def test_infinity_is_told():
    kernels = kernels_for(torch.zeros(1))
    rows = torch.tensor([[1.0], [torch.inf], [torch.nan], [2.0]])
    table, none = torch.tensor([[0, 1, 2, 3]], dtype=torch.int32), torch.empty(0, dtype=torch.int64)
    _, _, nan, infinite = peaks_of_rows(kernels, rows, none, table, Policy())
    assert nan
    assert infinite
    _, _, nan, infinite = peaks_of_rows(kernels, rows[::3], none, table.clamp(max=1), Policy())
    assert not nan
    assert not infinite


def test_a_broken_numba_is_a_reason_and_no_error(monkeypatch):
    monkeypatch.setattr(availability, "NUMBA", Library("nosuch_numba", "pip install nosuch"))
    availability._loaded.cache_clear()
    try:
        assert "nosuch_numba is not installed: pip install nosuch" in kernels_problem()
        assert kernels_for(torch.zeros(1)) is None
        with pytest.raises(nansparse.EngineError, match="pip install nosuch"):
            nansparse.enable(seeded(SegNet), engine="numba").__enter__()
        model, x = seeded(SegNet), image()
        with torch.no_grad(), nansparse.enable(model) as run:
            model(x)
        assert "numba" not in {layer.engine for layer in run.layers}
    finally:
        availability._loaded.cache_clear()


THREADS = """
import torch
from nansparse.compiled import kernels_for
odd = 3 + torch.get_num_threads()  # no number that a machine has by itself
torch.set_num_threads(odd)
kernels = kernels_for(torch.zeros(1))
assert torch.get_num_threads() == odd, torch.get_num_threads()
torch.set_num_threads(odd + 1)
kernels.run(kernels.windows.try_threads, into=(torch.zeros(100),))
assert torch.get_num_threads() == odd + 1, torch.get_num_threads()
"""


def test_the_loops_leave_the_number_of_threads_alone():
    # A process of its own, because numba starts its threads once.
    subprocess.run([sys.executable, "-c", THREADS], check=True)


@given(data=st.data(), rank=st.sampled_from([2, 3]))
@settings(max_examples=80)
def test_a_tie_anywhere_is_found(data, rank):
    grid = tuple(data.draw(st.integers(2, 9)) for _ in range(rank))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    x = torch.randperm(3 * math.prod(grid), generator=generator).float().view(-1, 3)
    windows = convolution_windows(grid, (2,) * rank, (2,) * rank)
    kernels = kernels_for(x)
    before, after = (Sites(None, 1, g, x.device) for g in (grid, windows.out_grid))
    table = rows_read(kernels, before, after, windows)
    assert not may_tie(kernels, x, table, 1e-7)
    line = table[data.draw(st.integers(0, len(table) - 1))]
    one, other = data.draw(st.permutations(range(len(line))))[:2]
    channel = data.draw(st.integers(0, 2))
    odd = data.draw(st.sampled_from([torch.nan, torch.inf, 1e9]))
    x[line[one], channel] = odd
    if odd == 1e9:
        assert not may_tie(kernels, x, table, 1e-7)
        x[line[other], channel] = odd
    assert may_tie(kernels, x, table, 1e-7)


@given(data=st.data(), rank=st.sampled_from([2, 3]))
@settings(max_examples=80)
def test_rows_are_combined_as_torch_does(data, rank):
    grid = tuple(data.draw(st.integers(1, 6)) for _ in range(rank))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    parts = []
    for _ in range(2):
        x = torch.randn(2, 3, *grid, generator=generator).round(decimals=1)
        missing = torch.rand(2, 1, *grid, generator=generator) < data.draw(st.sampled_from([0.0, 0.4, 0.9]))
        single = torch.rand(x.shape, generator=generator) < data.draw(st.sampled_from([0.0, 0.2]))
        parts.append(x.masked_fill_(missing | single, torch.nan))
    name = data.draw(st.sampled_from(["maximum", "minimum", "add", "sub", "mul"]))
    activations = [SparseActivation.from_dense(part) for part in parts]
    found = combined(name, activations)
    assert found is not None
    expected = getattr(torch, name)(*parts)
    both = ~(parts[0].isnan().all(1) | parts[1].isnan().all(1))
    assert torch.equal(found.sites.mask, both)
    torch.testing.assert_close(found.rows, expected.movedim(1, -1)[both], rtol=0, atol=0, equal_nan=True)


OTHER_WIDTH = """
import numba
import torch
from llvmlite import binding
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
numba.config.OPT = type(numba.config.OPT)("0")  # to compile in half the time
FunctionCache.save_overload = lambda *of_little_speed: None
from nansparse.compiled import cells, means, pooling, repeats, windows  # of no width: kept ones will do
numba.njit(lambda: 0)()  # from here on numba knows its processor
Dispatcher.enable_caching = lambda self: None
own = binding.get_host_cpu_features()
asked = {**own, "avx512f": not own.get("avx512f", False)}
binding.get_host_cpu_features = lambda: asked
import nansparse
from nansparse.activation import SparseActivation
from nansparse.compiled import kernels_for, kernels_problem
from nansparse.convolution import Convolution
from nansparse.functional import nan_conv
from nansparse.windows import convolution_windows
assert not kernels_problem(), kernels_problem()
lanes = kernels_for(torch.zeros(1)).microkernel.LANES
assert lanes == (16 if asked["avx512f"] else 8)
torch.manual_seed(0)
for out in (1, 8, 16, 24, 32, 48, 64, 71, 80, 130):
    x = torch.randn(2, 5, 13, 11)
    x[torch.rand(2, 1, 13, 11).expand_as(x) < 0.3] = torch.nan
    weight, bias = torch.randn(out, 5, 3, 3), torch.randn(out)
    windows = convolution_windows((13, 11), 3, 1, 1)
    convolution = Convolution(weight, bias, windows, 1, 0.5)
    for name in ("winograd", "numba"):
        if name == "numba":
            x[torch.rand_like(x) < 0.1] = torch.nan
        found = nansparse.registry.get(name).run(SparseActivation.from_dense(x), convolution).to_dense()
        expected = nan_conv(x, weight, bias, padding=1, threshold=0.5)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
"""


def test_what_would_be_written_into_a_copy_is_refused():
    kernels = kernels_for(torch.zeros(1))
    rows, where = torch.arange(6.0).view(2, 3).T, torch.empty(0, dtype=torch.int64)
    sums, nans = torch.zeros(3, 2)[:, 0], torch.zeros(3, dtype=torch.int32)
    with pytest.raises(TypeError, match="No matching definition"):
        kernels.run(kernels.cells.sum_rows, rows, where, into=(sums, nans))
    kernels.run(kernels.cells.sum_rows, rows, where, into=(sums.contiguous(), nans))


@pytest.mark.slow
def test_vectors_of_the_other_width_give_the_same():
    # Which width is used depends on the processor; LLVM writes either for any. Loops of the other width are
    # neither looked for among those that are kept, nor kept.
    subprocess.run([sys.executable, "-c", OTHER_WIDTH], check=True)


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("products", ["cells", "lookup", "microkernel", "windows"]),
        ("means", ["cells", "windows"]),
        ("steps", ["microkernel"]),
        ("winograd", ["cells", "lines", "matrices", "microkernel", "taps", "tiles", "transforms", "vectors"]),
    ],
)
def test_a_change_of_a_helper_changes_the_file_by_which_numba_keeps_the_loop(module, others):
    folder = Path(availability.__file__).parent
    content = b"".join((folder / f"{name}.py").read_bytes() for name in others)
    digest = hashlib.sha256(content).hexdigest()[:12]
    assert f'FROM_OTHERS = "{digest}"' in (folder / f"{module}.py").read_text(), digest
