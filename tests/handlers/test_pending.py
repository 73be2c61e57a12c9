"""Point-wise steps that are put off and done together give what torch gives, one by one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled import kernels_problem
from nansparse.handlers.alignment import combined
from nansparse.pending import Pending, steps_for
from nansparse.sites import Sites
from tests.handlers.caught import assert_same, caught, holed

pytestmark = pytest.mark.skipif(steps_for(torch.zeros(1)) is None, reason=kernels_problem() or "-")

# Fewer channels than a vector has lanes, as many, more, and a multiple.
CHANNELS = (1, 5, 8, 16, 19, 32, 71)
COMBINED = {
    "none": None,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
}
NORMS = ("none", "batch", "plain batch", "instance", "group")
BENDS = ("none", "relu", "leaky", "prelu", "one slope")


def norm(name: str, x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    mean, weight, bias = (torch.randn(x.shape[1], generator=generator) for _ in range(3))
    variance = torch.rand(x.shape[1], generator=generator) + 0.1
    if name == "batch":
        return F.batch_norm(x, mean, variance, weight, bias)
    if name == "plain batch":
        return F.batch_norm(x, mean, variance)
    if name == "instance":
        return F.instance_norm(x, weight=weight, bias=bias)
    return F.group_norm(x, 1, weight, bias) if name == "group" else x


def bend(name: str, x: Tensor) -> Tensor:
    if name == "relu":
        return F.relu(x)
    if name == "leaky":
        return F.leaky_relu(x, 0.2)
    if name == "prelu":
        return F.prelu(x, torch.linspace(-1, 1, x.shape[1]))
    return F.prelu(x, torch.tensor([0.3])) if name == "one slope" else x


def expected_norm(name: str, x: Tensor) -> Tensor:
    """The norms over space are those of the real values, sample by sample."""
    if name not in ("instance", "group"):
        return norm(name, x)
    axes = tuple(range(2, x.dim())) if name == "instance" else tuple(range(1, x.dim()))
    mean = x.double().nanmean(axes, keepdim=True)
    spread = ((x.double() - mean) ** 2).nanmean(axes, keepdim=True)
    generator = torch.Generator().manual_seed(7)
    _, weight, bias = (torch.randn(x.shape[1], generator=generator) for _ in range(3))
    shape = (1, -1, *(1,) * (x.dim() - 2))
    return (((x - mean) / (spread + 1e-5).sqrt()) * weight.view(shape) + bias.view(shape)).float()


def magnified(name: str, x: Tensor) -> float:
    """How much a norm over space magnifies what was rounded: values that lie close together most."""
    if name not in ("instance", "group"):
        return 1.0
    axes = tuple(range(2, x.dim())) if name == "instance" else tuple(range(1, x.dim()))
    spread = ((x - x.nanmean(axes, keepdim=True)) ** 2).nanmean(axes)
    return max(1.0, float((spread + 1e-5).rsqrt().nan_to_num(0.0).max()))


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_chain_is_that_of_torch(data: st.DataObject) -> None:
    grid = tuple(data.draw(st.integers(1, 5)) for _ in range(data.draw(st.integers(2, 3))))
    shape = (2, data.draw(st.sampled_from(CHANNELS)), *grid)
    patterns = st.sampled_from(["none", "sites", "half", "channels", "one sample", "all"])
    x, other = (holed(seed, shape, data.draw(patterns)) for seed in (1, 2))
    normed, way, bent = (data.draw(st.sampled_from(list(n))) for n in (NORMS, COMBINED, BENDS))
    assume(normed != "instance" or math.prod(grid) > 1)  # torch refuses
    combine, swapped, kept = COMBINED[way], data.draw(st.booleans()), data.draw(st.booleans())

    def run(of, x: Tensor, other: Tensor) -> tuple[Tensor, ...]:
        first = of(normed, x)
        pair = (other * 1, first) if swapped else (first, other * 1)
        met = first if combine is None else combine(*pair)
        out = bend(bent, met)
        # Each is asked for after the other, so that one run may have computed both.
        return (out, met + 0, first + 0) if kept else (out,)

    found, _ = caught(lambda x, other: run(norm, x, other), x, other)
    for mine, theirs in zip(found, run(expected_norm, x, other), strict=True):
        assert_same(mine, theirs, 2e-5 * magnified(normed, x))


@pytest.mark.parametrize("name", ["add", "mul", "sub"])
def test_a_sum_in_place_is_put_off_as_well(name: str) -> None:
    x, other = holed(1, (2, 5, 4, 3), "sites"), holed(2, (2, 5, 4, 3), "half")

    def model(x: Tensor, other: Tensor) -> Tensor:
        y = norm("batch", x)
        y = getattr(y, f"__i{name}__")(other * 1)
        return F.relu(y, inplace=True)

    found, _ = caught(model, x, other)
    assert_same(found, model(x.clone(), other), 2e-5)


def test_infinities_are_those_of_torch() -> None:
    x = torch.tensor([1.0, -torch.inf, torch.inf, torch.nan, -2.0, 0.0, 3.0, 1.0]).view(1, 1, 2, 4)
    x = torch.cat([x, torch.ones_like(x)], 1)
    for name in BENDS:
        found, _ = caught(lambda x, name=name: bend(name, torch.maximum(x * 1, x * 1)), x)
        assert torch.equal(found.isnan(), bend(name, x).isnan()), name
        assert torch.equal(found.nan_to_num(9.0), bend(name, x).nan_to_num(9.0)), name


def _pending(rows: int = 6) -> SparseActivation:
    values = torch.randn(rows, 3, generator=torch.Generator().manual_seed(0))
    kernels = steps_for(values)
    assert kernels is not None
    sites = Sites(torch.arange(rows), 1, (4, 4), values.device)
    steps = Pending.start(kernels, values)
    return SparseActivation(
        sites, steps.combined("add", values, rows, sites.no_places, sites.no_places), False
    )


def test_what_is_bent_is_written_in_the_same_pass_if_somebody_holds_it() -> None:
    held = _pending()
    assert held.pending is not None
    bent = held.with_values(held.pending.bent(None, held))
    assert bent.pending is not None
    found = bent.values
    assert held.pending is None
    assert torch.equal(found, held.values.relu())


def test_what_is_bent_is_not_written_if_nobody_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = _pending()
    assert dropped.pending is not None
    settled: list[object] = []
    monkeypatch.setattr(SparseActivation, "settle", lambda self, values: settled.append(values))
    bent = dropped.with_values(dropped.pending.bent(None, dropped))
    expected = 2 * dropped.pending.rows
    del dropped
    assert torch.equal(bent.values, expected.relu())
    assert not settled


def test_weights_are_read_when_the_layer_is_called() -> None:
    def model(x: Tensor) -> Tensor:
        variance, weight, slope = torch.ones(3), torch.full((3,), 2.0), torch.full((3,), 0.5)
        y = F.prelu(F.batch_norm(x, torch.zeros(3), variance, weight), slope)
        for parameter in (variance, weight, slope):
            parameter.fill_(torch.nan)
        return y * 1

    x = holed(1, (1, 3, 4, 4), "sites")
    assert_same(caught(model, x)[0], model(x), 1e-5)


def test_no_common_site_is_no_row() -> None:
    x = torch.ones(1, 3, 2, 2)
    left, right = x.clone(), x.clone()
    left[..., 0], right[..., 1] = torch.nan, torch.nan
    found = combined("add", [SparseActivation.from_dense(part) for part in (left, right)])
    assert found is not None
    assert found.rows.shape == (0, 3)
