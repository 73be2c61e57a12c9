"""Max pooling on rows says what the definition says: by cells, and by the segments of torch-scatter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nansparse.adapters import torch_scatter

from nansparse.activation import SparseActivation
from nansparse.errors import InputError
from nansparse.functional import nan_max_pool
from nansparse.pooled_rows import cell_peaks, pool_rows
from tests.functional.drawing import NAN_PATTERNS, geometries, levels, seeds, values, with_nan

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def by_segments(rows, table, epsilon):
    if torch_scatter.LIBRARY.problem:
        pytest.skip(torch_scatter.LIBRARY.problem)
    return torch_scatter.segment_peaks(rows, table, epsilon)


finders = pytest.mark.parametrize("find", [cell_peaks, by_segments])


def assert_same(x, options, find, **rule):
    """Compare values, indices and ties with the definition, windows without a site as well."""
    chance = {}
    if rule.get("nan_probability", 1.0) < 1.0:
        chance = {"generator": torch.Generator().manual_seed(1)}
    expected = nan_max_pool(x, **options, **rule, **chance)
    if chance:
        chance["generator"].manual_seed(1)
    activation = SparseActivation.from_dense(x)
    before = activation.rows.clone()
    pooled = pool_rows(activation, **options, **rule, **chance, find=find)
    assert torch.equal(activation.rows.nan_to_num(7.0), before.nan_to_num(7.0)), "the input was changed"
    numbers = pooled.sites.numbers
    flat = [t.movedim(1, -1).reshape(-1, x.shape[1]) for t in (expected.values, expected.indices)]
    assert pooled.values.dtype == x.dtype
    assert torch.equal(pooled.values.nan_to_num(99.0), flat[0][numbers].nan_to_num(99.0))
    assert torch.equal(pooled.values.isnan(), flat[0][numbers].isnan())
    assert torch.equal(pooled.indices, flat[1][numbers])
    others = torch.ones(len(flat[0]), dtype=torch.bool)
    others[numbers] = False
    assert flat[0][others].isnan().all()
    if expected.ties is None:
        assert pooled.ties is None
    else:
        marks = torch.zeros(activation.sites.total, x.shape[1], dtype=torch.bool)
        marks[activation.sites.numbers] = pooled.ties
        assert torch.equal(marks, expected.ties.movedim(1, -1).reshape(marks.shape))
    return expected


@st.composite
def cases(draw):
    geometry = draw(geometries(pooling=True))
    shape = (draw(st.integers(0, 2)), draw(st.sampled_from((1, 2, 7))), *geometry.grid)
    seed = draw(seeds)
    x = draw(st.sampled_from((levels, levels, values)))(seed, shape, draw(st.sampled_from(DTYPES)))
    options = dict(zip(("kernel_size", "stride", "padding", "dilation"), geometry[1:], strict=True))
    options["ceil_mode"] = draw(st.booleans())
    rule = {"mode": draw(st.sampled_from(("conservative", "aggressive")))}
    rule |= {"max_ties": draw(st.integers(1, 3)), "epsilon": draw(st.sampled_from((0.0, 1e-7, 1e-2)))}
    if rule["mode"] == "aggressive":
        rule["nan_probability"] = draw(st.sampled_from((1.0, 0.5)))
    return with_nan(x, draw(st.sampled_from(NAN_PATTERNS)), seed + 1), options, rule


@finders
def test_rows_are_pooled_as_the_definition_says(find):
    unstable = []

    @given(case=cases())
    @settings(max_examples=150, database=None)
    def check(case):
        x, options, rule = case
        assert_same(x, options, find, **rule)
        unstable.append(bool(nan_max_pool(x, **options, mode="conservative").ties.any()))

    check()
    assert sum(unstable) > 20, "the drawn inputs must hold ties"


@finders
@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize("extreme", [torch.inf, -torch.inf, torch.finfo(torch.float64).min])
def test_infinities_and_the_lowest_number_are_values(find, mode, extreme):
    x = levels(0, (1, 2, 6, 6))
    x[..., 1:3, :3] = extreme
    x[:, :, 4:] = torch.nan
    assert_same(x, {"kernel_size": 2}, find, mode=mode)


@finders
def test_without_a_site(find):
    assert_same(
        torch.full((2, 3, 4, 4), torch.nan), {"kernel_size": 2, "padding": 1}, find, mode="conservative"
    )


@finders
def test_one_row_met_by_many_windows_is_remembered_once(find):
    """Stride 1: the tied middle is a cell of nine windows."""
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2], x[..., 2, 1] = 1.0, 1.0
    assert_same(x, {"kernel_size": 3, "stride": 1, "padding": 1}, find, mode="conservative")


def test_bad_options_are_refused():
    activation = SparseActivation.from_dense(torch.zeros(1, 1, 4, 4))
    with pytest.raises(InputError, match="mode must be"):
        pool_rows(activation, 2, mode="brave")
    with pytest.raises(InputError, match="padding must be at most half"):
        pool_rows(activation, 2, padding=2, mode="aggressive")
    with pytest.raises(InputError, match="needs an explicit generator"):
        pool_rows(activation, 2, mode="aggressive", nan_probability=0.5)
