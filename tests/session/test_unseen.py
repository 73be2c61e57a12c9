"""Operations on marked tensors that no mode sees, and marked tensors that outlive their run."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nansparse
from nansparse import NansparseError
from tests.functional.drawing import values


class Then(nn.Module):
    """A convolution, something else, and another convolution."""

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.step = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3), step
        for seed, parameter in enumerate(self.parameters()):
            parameter.data = values(seed, tuple(parameter.shape), torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.step(self.first(x)))


def outcome(step: Callable[[Tensor], Tensor]) -> Tensor:
    """Run the network on an image with a background of NaN."""
    x = values(7, (1, 2, 12, 10), torch.float32)
    x[..., :4] = torch.nan
    model = Then(step).eval()
    with nansparse.enable(model, output_nan="keep") as run:
        out = model(x)
    assert run.windows_skipped > 0
    assert out.isnan().any()
    assert not out.isnan().all()
    return out


@torch.jit.script
def scripted_in_place(x: Tensor):
    return x.clamp_(0.0, 1.0)


@torch.jit.script
def scripted(x: Tensor):
    return x.clamp(0.0, 1.0)


@torch.jit.script
def scripted_convolution(x: Tensor, weight: Tensor):
    return torch.conv2d(x, weight)


traced = torch.jit.trace(lambda x: x.clamp(0.0, 1.0), torch.ones(1, 4, 2, 2))


def by_overload(x: Tensor) -> Tensor:
    return torch.ops.aten.clamp_.default(x, 0.0, 1.0)


def by_data(x: Tensor) -> Tensor:
    x.data = x.clamp(0.0, 1.0).data
    return x


def by_set(x: Tensor) -> Tensor:
    x.set_(x.clamp(0.0, 1.0))
    return x


def by_numpy(x: Tensor) -> Tensor:
    array = x.numpy()
    np.clip(array, 0.0, 1.0, out=array)
    return x


def by_array(x: Tensor) -> Tensor:
    array = np.asarray(x)
    np.clip(array, 0.0, 1.0, out=array)
    return x


def by_dlpack(x: Tensor) -> Tensor:
    torch.utils.dlpack.from_dlpack(x).clamp_(0.0, 1.0)
    return x


def unseen_in_place(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        x.clamp_(0.0, 1.0)
    return x


def in_a_list(x: Tensor) -> Tensor:
    torch._foreach_clamp_max_([x], 1.0)
    torch._foreach_clamp_min_([x], 0.0)
    return x


def unseen(x: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return x.clamp(0.0, 1.0)


def by_class(x: Tensor) -> Tensor:
    return x.as_subclass(Tensor).clamp(0.0, 1.0)


def by_parameter_class(x: Tensor) -> Tensor:
    return x.as_subclass(nn.Parameter).clamp(0.0, 1.0)


def by_copy(x: Tensor) -> Tensor:
    return copy.copy(x).clamp(0.0, 1.0)


def by_deep_copy(x: Tensor) -> Tensor:
    return copy.deepcopy(x).clamp_(0.0, 1.0)


def by_vmap(x: Tensor) -> Tensor:
    return torch.vmap(lambda sample: sample.clamp(0.0, 1.0))(x)


STEPS = [
    scripted_in_place,
    scripted,
    traced,
    by_overload,
    by_data,
    by_set,
    by_numpy,
    by_array,
    by_dlpack,
    unseen_in_place,
    in_a_list,
    unseen,
    by_class,
    by_parameter_class,
    by_copy,
    by_deep_copy,
    by_vmap,
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: getattr(step, "__name__", "scripted"))
def test_what_is_not_seen_happens_all_the_same(step):
    expected = outcome(lambda x: x.clamp(0.0, 1.0))
    torch.testing.assert_close(outcome(step), expected, equal_nan=True)


def test_what_has_rules_of_its_own_is_refused_where_it_is_not_seen():
    weight = torch.ones(4, 4, 1, 1)
    with pytest.raises(NansparseError, match="^conv.* call it from Python"):
        outcome(lambda x: scripted_convolution(x, weight))

    def disabled(x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return F.max_pool2d(x, 2)

    with pytest.raises(NansparseError, match="max_pool2d.* call it from Python"):
        outcome(disabled)


@torch.jit.script
def scripted_mean(x: Tensor):
    return x - x.mean([2, 3], keepdim=True)


@torch.jit.script
def scripted_norm(x: Tensor):
    return F.instance_norm(x)


@pytest.mark.parametrize("step", [scripted_mean, scripted_norm], ids=["mean", "norm"])
def test_statistics_where_they_are_not_seen_are_refused(step):
    """NaN would erase the sample there."""
    with pytest.raises(NansparseError, match="call it from Python"):
        outcome(step)


def test_a_refusal_does_not_hide_what_the_model_raises_later():
    def step(x: Tensor) -> Tensor:
        with pytest.raises(RuntimeError):
            scripted_mean(x)
        raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        outcome(step)


def test_a_debugger_in_another_thread_may_look():
    shown: list[str] = []

    def step(x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            shown.append(pool.submit(repr, x).result())
        shown.append(f"{x}")
        shown.append(f"{x[0, 0, 0, 9]:.3f}")
        return x

    outcome(step)
    assert all(text.startswith("tensor(") for text in shown[:2])
    assert abs(float(shown[2])) < torch.inf


def test_a_branch_in_another_thread_is_refused():
    def branch(x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: x.clamp(0.0, 1.0)).result()

    with pytest.raises(NansparseError, match="in another thread"):
        outcome(branch)


@pytest.fixture
def kept() -> Tensor:
    """A marked tensor that outlived its run."""
    found: list[Tensor] = []
    outcome(lambda x: found.append(x) or x.clamp(0.0, 1.0))
    assert found[0].isnan().any()
    return found[0]


def fill(x: Tensor) -> None:
    x.fill_(3.0)


def assign(x: Tensor) -> None:
    x[:] = 3.0


def add(x: Tensor) -> None:
    before = x
    x.nan_to_num_(0.0)
    x *= 0.0
    x += 3.0
    assert x is before


def write_out(x: Tensor) -> None:
    assert torch.add(torch.zeros_like(x), 3.0, out=x) is x


def relu(x: Tensor) -> None:
    assert F.relu(x.fill_(3.0), inplace=True) is x


def through_data(x: Tensor) -> None:
    x.data.fill_(3.0)


def through_a_view(x: Tensor) -> None:
    x[0].view(-1).fill_(3.0)


def through_numpy(x: Tensor) -> None:
    x.cpu().numpy()[:] = 3.0


def unseen_fill(x: Tensor) -> None:
    with torch._C.DisableTorchFunction():
        x.fill_(3.0)


@pytest.mark.parametrize(
    "change",
    [fill, assign, add, write_out, relu, through_data, through_a_view, through_numpy, unseen_fill],
    ids=lambda change: change.__name__,
)
def test_a_kept_tensor_is_changed_like_any_other(kept, change):
    change(kept)
    assert torch.equal(kept + 0, torch.full(kept.shape, 3.0))
    assert bool((kept == 3.0).all())


def test_a_kept_tensor_may_change_its_shape(kept):
    shape = kept.shape
    assert kept.unsqueeze_(0).shape == kept.shape == (1, *shape)
    assert kept.squeeze_(0).transpose_(2, 3).stride(3) == kept.stride(3) > 1


def saved(x: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize(
    "make",
    [
        copy.copy,
        copy.deepcopy,
        lambda x: pickle.loads(pickle.dumps(x)),
        saved,
        lambda x: x.as_subclass(Tensor),
    ],
    ids=["copy", "deep copy", "pickle", "save", "class"],
)
def test_a_kept_tensor_is_copied_and_saved_as_a_plain_one(kept, make):
    made = make(kept)
    assert type(made) is Tensor
    torch.testing.assert_close(made, kept + 0, equal_nan=True)


def test_state_that_a_model_keeps_can_be_reset_between_runs():
    class Remembers(nn.Conv2d):
        held: Any = None

        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            before, self.held = self.held, y
            return y if before is None else y + before

    model, x = Remembers(1, 2, 3, padding=1).eval(), values(3, (1, 1, 8, 8), torch.float32)
    holed = x.clone()
    holed[..., :3] = torch.nan
    with torch.no_grad():
        with nansparse.enable(model):
            first, second = model(holed), model(holed)
        torch.testing.assert_close(second, first * 2)
        model.held.zero_()
        expected = F.conv2d(x, model.weight, model.bias, padding=1)
        torch.testing.assert_close(model(x), expected)


def test_a_clone_of_what_others_may_write_to_is_a_copy():
    def step(x: Tensor) -> Tensor:
        array = x.numpy()
        copied = x.clone()
        array[:] = 3.0
        assert not (copied == 3.0).any()
        return copied

    torch.testing.assert_close(outcome(step), outcome(lambda x: x), equal_nan=True)


def test_another_memory_format_is_a_copy():
    def step(x: Tensor) -> Tensor:
        x.contiguous(memory_format=torch.channels_last).add_(100.0)
        assert x.contiguous() is x
        return x

    torch.testing.assert_close(outcome(step), outcome(lambda x: x), equal_nan=True)


def test_a_kept_tensor_is_an_input_like_any_other(kept):
    model = nn.Conv2d(4, 2, 3).eval()
    with nansparse.enable(model), torch.no_grad():
        out, expected = model(kept), model(kept + 0)
    assert type(out) is Tensor
    assert torch.equal(out, expected)


def test_a_kept_tensor_of_another_shape_says_so_within_a_run(kept):
    kept.unsqueeze_(0)
    seen: list[Any] = []
    outcome(lambda x: seen.append((kept.shape, kept.dim(), len(kept), kept[0].shape)) or x)
    shape = tuple(kept[0].shape)
    assert seen == [((1, *shape), 5, 1, shape)]


def test_a_change_through_another_name_after_the_run_is_told():
    names: list[Tensor] = []

    def step(x: Tensor) -> Tensor:
        names.extend((x, x.detach()))
        return x

    outcome(step)
    names[1].fill_(2.0)
    with pytest.raises(NansparseError, match="changed in place through a view"):
        names[0] + 0
