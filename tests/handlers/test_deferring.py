"""Steps behind a batch norm are put off where nothing is marked, and nobody can tell but by the clock."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import nansparse
from nansparse.compiled import kernels_for, kernels_problem
from nansparse.deferred import DeferredTensor
from nansparse.handlers import deferring
from nansparse.zoo.fastsurfer import FastSurferCNN
from tests.functional.drawing import values
from tests.handlers.caught import caught

pytestmark = pytest.mark.skipif(kernels_for(torch.zeros(1)) is None, reason=kernels_problem() or "-")

CHANNELS = (2, 5, 8, 16, 19, 32, 71)
COMBINED = {
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "+": lambda a, b: a + b,
    "+=": lambda a, b: a.__iadd__(b),
    "alpha": lambda a, b: torch.add(a, b, alpha=2),
}
BENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, inplace=True),
    "relu_": lambda x: x.relu_(),
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "leaky in place": lambda x: F.leaky_relu(x, negative_slope=0.1, inplace=True),
    "prelu": lambda x: F.prelu(x, torch.linspace(-1, 1, x.shape[1])),
    "one slope": lambda x: F.prelu(x, torch.tensor([0.3])),
    "dropout": lambda x: F.relu(F.dropout(x, 0.5, training=False)),
    "untaught": torch.sigmoid,
}


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferring, "LEAST_CELLS", 0)


def last(seed: int, shape: tuple[int, ...]) -> Tensor:
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    return values(seed, shape, torch.float32).contiguous(memory_format=layout)


X = (2, 5, 4, 3)


def norm(x: Tensor, *, affine: bool = True, eps: float = 1e-5) -> Tensor:
    draw = torch.Generator().manual_seed(7)
    mean, weight, bias = (torch.randn(x.shape[1], generator=draw) for _ in range(3))
    variance = torch.rand(x.shape[1], generator=draw) + 0.1
    return F.batch_norm(x, mean, variance, *((weight, bias) if affine else ()), training=False, eps=eps)


def assert_equal_bits(found: Any, expected: Any) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert type(mine) is Tensor
        assert torch.equal(mine, theirs)
        assert mine.stride() == theirs.stride()


def deferred(x: Tensor) -> DeferredTensor:
    assert isinstance(x, DeferredTensor)
    return x


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_chain_has_the_bits_of_torch(data: st.DataObject) -> None:
    grid = tuple(data.draw(st.integers(2, 5)) for _ in range(data.draw(st.integers(2, 3))))
    shape = (data.draw(st.integers(1, 2)), data.draw(st.sampled_from(CHANNELS)), *grid)
    affine, eps = data.draw(st.booleans()), data.draw(st.sampled_from([1e-5, 1e-3]))
    way = data.draw(st.sampled_from(["none", *COMBINED]))
    bent, kind = (
        data.draw(st.sampled_from(list(BENDS))),
        data.draw(st.sampled_from(["plain", "norm", "bent"])),
    )
    swapped, kept = data.draw(st.booleans()), data.draw(st.booleans())

    def model(x: Tensor, other: Tensor) -> tuple[Tensor, ...]:
        other = {"plain": lambda: other * 1, "norm": lambda: norm(other), "bent": lambda: norm(other).relu()}[
            kind
        ]()
        first = norm(x, affine=affine, eps=eps)
        pair = (other, first) if swapped else (first, other)
        met = first if way == "none" else COMBINED[way](*pair)
        out = BENDS[bent](met)
        return (out + 0, met + 0, first + 0, other + 0) if kept else (out + 0,)

    x, other = last(1, shape), last(2, shape)
    found, _ = caught(model, x, other)
    assert_equal_bits(found, model(x, other))


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch runs without the vectors of this CPU"
)
def test_a_batch_norm_is_put_off_and_so_is_what_follows() -> None:
    def model(x: Tensor) -> Tensor:
        y = deferred(norm(x))
        best = deferred(torch.maximum(y, x))
        bent = deferred(F.relu(best))
        for step in (y, best, bent):
            assert step.activation.pending is not None
            assert (step.shape, step.dtype, step.stride()) == (x.shape, x.dtype, x.stride())
        return bent

    x = last(1, X)
    found, record = caught(model, x)
    assert torch.equal(found, F.relu(torch.maximum(norm(x), x)))
    assert record.densified == 0
    assert not record.marked


TOGETHER: dict[str, Callable[[Tensor], Tensor]] = {
    "with itself": lambda y: y * y,
    "with what came of it": lambda y: torch.maximum(y, F.leaky_relu(y, -0.5)),
    "what came of it with it": lambda y: F.leaky_relu(y, -0.5) - y,
    "with what came of it twice": lambda y: F.relu(torch.maximum(F.relu(y + 0), F.relu(-y) + y)),
    "normalized again": lambda y: norm(F.relu(norm(y))),
}


@pytest.mark.parametrize("way", TOGETHER)
def test_a_tensor_may_meet_itself(way: str) -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        y = norm(x)
        return TOGETHER[way](y) + 0, y

    found, _ = caught(model, last(1, X))
    assert_equal_bits(found, model(last(1, X)))


READ_THEN_CHANGED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "the input, by a method": lambda x, _: x.add_(1),
    "the input, by an operator": lambda x, _: x.__imul__(2),
    "the input, a part of it": lambda x, _: x.__setitem__((slice(None), 0), 3.0),
    "the input, through a view": lambda x, _: x.permute(0, 2, 3, 1)[..., 0].zero_(),
    "the input, through .data": lambda x, _: x.data.fill_(2),
    "the input, as out=": lambda x, _: torch.add(x, 1, out=x),
    "the input, by an overload": lambda x, _: torch.ops.aten.add_.Tensor(x, torch.ones(1)),
    "the input, by numpy": lambda x, _: x.numpy().fill(0),
    "the input, by a flag": lambda x, _: F.hardtanh(x, inplace=True),
    "the other": lambda _, other: other.mul_(-1),
}


@pytest.mark.parametrize("change", READ_THEN_CHANGED)
def test_what_a_step_reads_may_change_afterwards(change: str) -> None:
    def model(x: Tensor, other: Tensor) -> tuple[Tensor, ...]:
        x, other = x * 1, other * 1
        y = torch.maximum(norm(x), other)
        READ_THEN_CHANGED[change](x, other)
        return F.relu(y), x, other

    x, other = last(1, X), last(2, X)
    found, _ = caught(model, x, other)
    assert_equal_bits(found, model(x, other))


def test_a_change_in_place_is_seen_under_every_name() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        y = norm(x)
        held, view = [y], y[:, 1:]
        y.add_(1)
        z = norm(x)
        same = F.relu(z, inplace=True)
        same.mul_(2)
        return y, held[0], view, z, same

    found, _ = caught(model, last(1, X))
    assert_equal_bits(found, model(last(1, X)))


class SwishInPlace(torch.autograd.Function):
    """As memory-efficient activations are written."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(torch.sigmoid(x))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def test_a_change_in_place_gives_the_tensor_itself() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        y = norm(x)
        assert y.add_(1) is y
        assert F.silu(y, inplace=True) is y
        z = norm(x)
        return y, SwishInPlace.apply(z), z

    x = last(1, X)
    found, _ = caught(model, x)
    with torch.no_grad():
        assert_equal_bits(found, model(x))


METADATA: dict[str, Callable[[Tensor], Any]] = {
    "data": lambda y: setattr(y, "data", torch.zeros_like(y)),
    "unsqueeze_": lambda y: y.unsqueeze_(0),
    "transpose_": lambda y: y.transpose_(2, 3),
    "squeeze_": lambda y: y.squeeze_(),
    "requires_grad_": lambda y: y.requires_grad_(),
}


@pytest.mark.parametrize("change", METADATA)
def test_a_change_of_its_shape_is_seen_as_well(change: str) -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        y = norm(x)
        METADATA[change](y)
        again = norm(y) if y.shape == x.shape else y
        return (y * 1, again + 0, torch.tensor(y.shape), torch.tensor(y.requires_grad))

    x = last(1, (1, 5, 4, 3))
    found, _ = caught(model, x)
    with torch.no_grad():
        assert_equal_bits(found, model(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
def test_a_change_that_nobody_can_see_is_told() -> None:
    @torch.jit.script
    def change(x: Tensor) -> Tensor:
        return x.add_(1.0)

    def model(x: Tensor) -> Tensor:
        x = x * 1
        y = norm(x)
        change(x)
        return F.relu(y)

    with pytest.raises(nansparse.NansparseError, match="changed in place"):
        caught(model, last(1, X))


def test_what_a_hook_kept_outlives_an_error_in_the_model() -> None:
    kept: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        kept.append(norm(x))
        raise ValueError

    x = last(1, X)
    expected = norm(x)
    with pytest.raises(ValueError):
        caught(model, x)
    x.zero_()
    assert torch.equal(kept[0], expected)


def test_gradients_within_the_model_are_those_of_torch() -> None:
    def model(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(F.relu(norm(x)).sum(), x)[0]

    x = last(1, X)
    found, _ = caught(model, x)
    assert_equal_bits([found], [model(x)])


def test_zeros_keep_their_sign() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        y = torch.mul(norm(x), torch.zeros_like(x))
        leaky = F.leaky_relu(y, 0.1)
        return F.relu(y).signbit(), y.signbit(), leaky.signbit()

    x = last(1, X)
    found, _ = caught(model, x)
    assert_equal_bits(found, model(x))


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x * x


@torch.jit.script
def scripted(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


@cache
def traced_layer() -> nn.Module:
    return torch.jit.trace(nn.Conv2d(5, 2, 3).eval(), torch.ones(X))


def traced(x: Tensor) -> Tensor:
    return traced_layer()(x)


READERS: dict[str, Callable[[Tensor], Any]] = {
    "a scripted function": scripted,
    "an autograd function": _Square.apply,
    "a traced module": traced,
    "autocast": lambda y: torch.autocast("cpu", torch.bfloat16)(lambda: F.prelu(y, torch.full((5,), 0.3)))(),
    "numpy": lambda y: torch.from_numpy(y.numpy().copy()),
    "the address": lambda y: torch.tensor(y.data_ptr() != 0),
    "a list": lambda y: torch.cat([y, y], 1),
    "a number": lambda y: torch.tensor(y[0, 0, 0, 0].item()),
    "a keyword": lambda y: torch.clamp(input=y, min=0.0),
    "a copy": copy.copy,
    "a deep copy": copy.deepcopy,
    "a new layout": lambda y: y.contiguous(),
    "an assignment": lambda y: y.new_zeros(y.shape).copy_(y),
    "a convolution": lambda y: F.conv2d(y, torch.ones(2, 5, 3, 3)),
    "pooling": lambda y: F.max_pool2d(y, 2),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("reader", READERS)
def test_whoever_reads_gets_the_values(reader: str) -> None:
    def model(x: Tensor) -> Any:
        return READERS[reader](norm(x)) + 0

    with torch.no_grad():
        expected = model(last(1, X))
    found, _ = caught(model, last(1, X))
    assert_equal_bits([found], [expected])


AFTERWARDS: dict[str, Callable[[Tensor], Any]] = {
    "arithmetic": lambda y: y * 1,
    "numpy": lambda y: torch.from_numpy(y.numpy()),
    "asarray": lambda y: torch.from_numpy(np.asarray(y)),
    "tolist": lambda y: torch.tensor(y.tolist()),
    "a copy": copy.deepcopy,
    "a pickle": lambda y: pickle.loads(pickle.dumps(y)),
    "a method": lambda y: y.detach().clone(),
    "a change": lambda y: y.add_(0),
    "dlpack": torch.from_dlpack,
    "its shape": lambda y: torch.zeros(y.shape) + torch.cat([y]),
}


@pytest.mark.parametrize("reader", AFTERWARDS)
def test_what_a_hook_kept_is_like_any_tensor_after_the_run(reader: str) -> None:
    kept: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        kept.append(norm(x))
        return F.relu(kept[0])

    x = last(1, X)
    caught(model, x)
    found = AFTERWARDS[reader](kept[0])
    assert type(found) is Tensor
    assert torch.equal(found, norm(x))


def test_what_was_read_may_change_after_the_run() -> None:
    kept: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        kept.append(x * 1)
        kept.append(norm(kept[0]))
        return x

    x = last(1, X)
    caught(model, x)
    kept[0].zero_()
    assert torch.equal(kept[1], norm(x))


def test_what_the_model_returns_or_keeps_is_computed() -> None:
    kept: dict[str, Tensor] = {}

    def model(x: Tensor) -> dict[str, Any]:
        kept["y"] = norm(x)
        return {"a": norm(x), "b": [F.relu(norm(x)), (norm(x),)]}

    x = last(1, X)
    found, _ = caught(model, x)
    late = kept["y"] * 1
    expected = model(x)
    assert_equal_bits(
        [found["a"], *found["b"][:1], found["b"][1][0]], [expected["a"], F.relu(norm(x)), norm(x)]
    )
    assert torch.equal(late, norm(x))


def not_deferred(x: Tensor) -> Tensor:
    assert type(x) is Tensor
    return x


@pytest.mark.parametrize("kind", ["NCHW", "float64", "training", "autocast", "one channel", "other buffers"])
def test_what_the_loops_do_not_take_is_left_to_torch(kind: str) -> None:
    def model(x: Tensor) -> Tensor:
        if kind == "training":
            return not_deferred(F.batch_norm(x, torch.zeros(5), torch.ones(5), training=True))
        if kind == "other buffers":
            zeros, ones = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
            with pytest.raises(RuntimeError):
                F.batch_norm(x, zeros, ones)
            return x
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
            return not_deferred(F.batch_norm(x, x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])))

    x = last(1, X)
    x = {"NCHW": x.contiguous(), "float64": x.double(), "one channel": x[:, :1].contiguous()}.get(kind, x)
    caught(model, x)


def test_small_tensors_are_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferring, "LEAST_CELLS", last(1, X).numel() + 1)
    caught(lambda x: not_deferred(norm(x)), last(1, X))


def test_nothing_is_put_off_where_the_bits_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferring, "_gives_the_same_bits", lambda _: False)
    caught(lambda x: not_deferred(norm(x)), last(1, X))


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_a_network_gives_the_same_bits_as_without(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = FastSurferCNN(num_filters=16, num_classes=4).eval()
    model = model.to(memory_format=torch.channels_last)
    x = last(3, (1, 7, 32, 32))
    x[..., :12] = 0
    found = []
    for least in (0, 1 << 40):
        monkeypatch.setattr(deferring, "LEAST_CELLS", least)
        with nansparse.enable(model, mode=mode) as run:
            found.append(model(x))
        assert run.marked
    assert torch.equal(*found)
