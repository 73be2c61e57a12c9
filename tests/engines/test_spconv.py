"""What only the spconv adapter does: its two tables, what it sets in the process, what it keeps how long."""

from __future__ import annotations

import gc
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from nansparse.adapters import spconv

from nansparse.plan import plan_windows
from tests.engines.drawing import Case, cases
from tests.functional.drawing import values

drawn = cases(transposed=False, grouping="one group", dtype=torch.float64)
drawn_transposed = cases(transposed=True, grouping="one group", dtype=torch.float64)
either = pytest.mark.parametrize("drawn", [drawn, drawn_transposed], ids=["ordinary", "transposed"])


def planned(case):
    activation, convolution = case.for_engine()
    return activation, convolution, plan_windows(activation, convolution.windows, convolution.threshold)


def kernel_last(convolution):
    """The weight as (C_out, C, kernel volume)."""
    weight = convolution.weight
    return (weight.transpose(0, 1) if convolution.windows.transposed else weight).flatten(2)


def by_taps(activation, convolution, plan):
    """conv(x0, W) at the kept windows, from the plan itself."""
    padded = torch.cat([activation.rows.nan_to_num(0.0), activation.rows.new_zeros(2, activation.channels)])
    out = padded.new_zeros(len(plan.out), convolution.out_channels)
    for taps in plan.taps:
        cells = padded[taps.table.long()].flatten(1)
        product = cells @ kernel_last(convolution)[:, :, taps.positions].transpose(1, 2).flatten(1).T
        out.index_add_(0, torch.arange(len(out)) if taps.outputs is None else taps.outputs.long(), product)
    return out


@either
def test_pairs_say_which_row_meets_which_output(drawn):
    @given(case=drawn)
    @settings(max_examples=40, database=None)
    def check(case):
        activation, convolution, plan = planned(case)
        pairs, counts = spconv._pairs(plan)
        assert pairs.dtype == counts.dtype == torch.int32
        rows, out = activation.rows.nan_to_num(0.0), torch.zeros(len(plan.out), convolution.out_channels)
        out = out.double()
        for position, count in enumerate(counts.tolist()):
            inputs, outputs = pairs[:, position, :count].long()
            assert (pairs[:, position, count:] == spconv.NOTHING).all()
            assert len(outputs.unique()) == count
            out.index_add_(0, outputs, rows[inputs] @ kernel_last(convolution)[:, :, position].T)
        torch.testing.assert_close(out, by_taps(activation, convolution, plan))

    check()


@either
def test_the_masked_table_says_the_same(drawn):
    """A GPU reads it; what it means can be checked without one."""

    @given(case=drawn)
    @settings(max_examples=40, database=None)
    def check(case):
        activation, convolution, plan = planned(case)
        if plan.windows.volume > spconv.LARGEST_MASKED_KERNEL:
            return
        reads, masks, order = spconv._masked_table(plan)
        assert reads.dtype == masks.dtype == order.dtype == torch.int32
        assert sorted(order.tolist()) == list(range(len(plan.out)))
        there = (reads >= 0).long() * 2 ** torch.arange(len(reads))[:, None]
        unsigned = masks[:, 0].long() % 2**32
        assert torch.equal(unsigned, there.sum(0)[order.long()])
        assert torch.equal(unsigned, unsigned.sort().values)
        rows = torch.cat([activation.rows.nan_to_num(0.0), activation.rows.new_zeros(1, activation.channels)])
        out = torch.einsum("kmc,ock->mo", rows[reads.long()], kernel_last(convolution))
        torch.testing.assert_close(out, by_taps(activation, convolution, plan))

    check()


def test_the_thread_count_comes_back_after_an_exception():
    library, before = SimpleNamespace(name="spconv"), torch.get_num_threads()

    def interrupted():
        with spconv._conditions(library, torch.device("cpu")):
            assert torch.get_num_threads() == 1
            raise KeyboardInterrupt

    torch.set_num_threads(3)
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.cuda
@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_used_where_the_dense_convolution_would_use_it(monkeypatch, allowed):
    constants = ModuleType("spconv.constants")
    constants.SPCONV_ALLOW_TF32 = None
    monkeypatch.setitem(sys.modules, "spconv.constants", constants)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    with spconv._conditions(SimpleNamespace(name="spconv"), torch.device("cuda")):
        assert constants.SPCONV_ALLOW_TF32 is allowed
    assert constants.SPCONV_ALLOW_TF32 is None


def test_layers_that_keep_a_set_of_sites_share_one_table_and_it_goes_with_them():
    engine = spconv.SpconvEngine()
    if engine.problem:
        pytest.skip(engine.problem)
    x = values(0, (1, 4, 8, 8), torch.float32)
    x[..., :3] = torch.nan
    case = Case(x, values(1, (4, 4, 3, 3), torch.float32), None, {"groups": 1, "padding": 1}, 0.4, False)
    activation, convolution = case.for_engine()
    out = engine.run(activation, convolution)
    assert out.sites is activation.sites
    engine.run(out, convolution)
    assert len(engine._tables) == 1
    del activation, out
    gc.collect()
    assert len(engine._tables) == 0


def test_spconv_triton_stands_in_where_spconv_does_not_run(monkeypatch):
    """On a GPU whose spconv is the CPU build."""
    engine = spconv.SpconvEngine()
    cpu_build = SimpleNamespace(ops=SimpleNamespace(CPU_ONLY_BUILD=True))
    engine.libraries = [
        SimpleNamespace(name="spconv", problem="", load=lambda: cpu_build),
        SimpleNamespace(name="spconv_triton", problem=""),
    ]
    assert engine._library(torch.device("cuda")).name == "spconv_triton"
    assert engine._library(torch.device("cpu")).name == "spconv"
    assert engine.devices == ("cpu", "cuda")
    alone = spconv.SpconvTritonEngine()
    assert [library.name for library in alone.libraries] == ["spconv_triton"]


@pytest.mark.parametrize(
    ("cuda", "python", "wheel"),
    [(None, (3, 13), "spconv"), ("12.8", (3, 11), "spconv-cu120"), ("12.8", (3, 12), "spconv-cu126")],
)
def test_the_command_names_the_wheel_that_fits(monkeypatch, cuda, python, wheel):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(sys, "version_info", python)
    assert spconv._spconv().install == f"pip install {wheel}"
