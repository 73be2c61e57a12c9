"""Entering and leaving: whatever happens inside, the model is afterwards what it was before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import nansparse
from nansparse import EnableError
from tests.session.nets import NETS, SegNet, Shared, UNet, image, image_for, seeded

quiet = pytest.mark.filterwarnings("ignore:nansparse. nothing to do. the model was never called")


def state(model: nn.Module) -> list[tuple[Any, ...]]:
    """Everything that could differ: class, attributes (by identity), hooks, parameters."""
    found: list[tuple[Any, ...]] = []
    for name, module in model.named_modules():
        attributes = {k: list(v.items()) if isinstance(v, dict) else v for k, v in vars(module).items()}
        found.append((name, type(module), attributes))
    return found


def same(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("name", NETS)
def test_a_block_leaves_no_trace(name):
    model, x = seeded(NETS[name]), image_for(name)
    before, dense = state(model), same(model, x)
    with nansparse.enable(model, mode="aggressive"):
        model(x)
    assert state(model) == before
    assert torch.equal(same(model, x), dense)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError, SystemExit])
@pytest.mark.parametrize("where", ["in the block", "in the model", "in a hook"])
def test_any_exception_restores_the_model(error, where):
    model, x = seeded(SegNet), image()
    before, dense = state(model), same(model, x)

    def fail(*_: Any) -> None:
        raise error("stop")

    def block() -> None:
        with nansparse.enable(model):
            model(x)
            if where == "in the block":
                fail()
            handle = (model if where == "in a hook" else model.third).register_forward_hook(fail)
            try:
                model(x)
            finally:
                handle.remove()

    with pytest.raises(error):
        block()
    assert state(model) == before
    assert torch.equal(same(model, x), dense)
    with nansparse.enable(model) as record:
        model(x)
    assert record.marked


def test_after_a_failed_call_the_same_block_goes_on():
    model, x = seeded(SegNet), image()
    with nansparse.enable(model) as record:
        with pytest.raises(RuntimeError):
            model(torch.zeros(1, 5, 8, 8))
        assert model(x).shape == (2, 2, 16, 32)
    assert record.forwards == 1


@quiet
def test_nested_and_repeated_enable_are_refused():
    model = seeded(SegNet)
    with nansparse.enable(model):
        with pytest.raises(EnableError, match="enabled already.*leave that block first"):
            nansparse.enable(model)
        with pytest.raises(EnableError, match=r"enabled already \(module '0'\)"):
            nansparse.enable(nn.Sequential(model).eval())
    both = nansparse.enable(model), nansparse.enable(model)
    with both[0], pytest.raises(EnableError, match="enabled already"), both[1]:
        pass
    assert type(model) is SegNet
    with both[1], pytest.raises(EnableError, match="entered already"), both[1]:
        pass


def test_one_block_after_the_other_works():
    model, x = seeded(SegNet), image()
    outputs = []
    for _ in range(3):
        with nansparse.enable(model):
            outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[2])


def test_two_models_at_once_and_exits_out_of_order():
    first, second, x = seeded(SegNet), seeded(Shared), image()
    one, two = nansparse.enable(first), nansparse.enable(second, threshold=1.0)
    expected = {}
    for model, options in ((first, {}), (second, {"threshold": 1.0})):
        with nansparse.enable(model, **options):
            expected[model] = model(x)
    one.__enter__()
    two.__enter__()
    assert torch.equal(first(x), expected[first])
    assert torch.equal(second(x), expected[second])
    one.__exit__(None, None, None)
    assert type(first) is SegNet
    assert torch.equal(second(x), expected[second])
    two.__exit__(None, None, None)
    assert type(second) is Shared


@quiet
def test_an_enabled_model_inside_another_enabled_model_is_refused_at_the_call():
    inner = seeded(SegNet)
    outer = nn.Sequential(inner).eval()
    with nansparse.enable(outer), nansparse.enable(inner), pytest.raises(EnableError, match="outer one only"):
        outer(image())
    assert type(inner) is SegNet


def test_threads_share_a_model_and_its_record():
    model, images = seeded(SegNet), [image(seed=seed) for seed in range(8)]
    with nansparse.enable(model):
        alone = [model(x) for x in images]
    with nansparse.enable(model) as record, ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model, images))
    assert all(map(torch.equal, alone, together))
    assert record.forwards == 8
    (layer,) = [layer for layer in record.layers if layer.layer == "first"]
    assert layer.calls == 8


def test_another_thread_may_run_another_model_densely_meanwhile():
    model, other, x = seeded(SegNet), seeded(UNet), image()

    def elsewhere(meanwhile):
        # OpenMP has a number of threads for each thread, and the bits hang on it: never the main one.
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(same, other, x)
            meanwhile()
            return found.result()

    dense = elsewhere(lambda: None)
    with nansparse.enable(model):
        assert torch.equal(elsewhere(lambda: model(x)), dense)


def test_the_number_of_threads_may_change_in_between():
    model, x, threads = seeded(SegNet), image(), torch.get_num_threads()
    try:
        with nansparse.enable(model, output_nan="keep"):
            outputs = []
            for count in (1, 3, 2):
                torch.set_num_threads(count)
                outputs.append(model(x).detach())
    finally:
        torch.set_num_threads(threads)
    for out in outputs[1:]:
        torch.testing.assert_close(out, outputs[0], equal_nan=True)


@quiet
def test_a_model_stays_itself_inside_the_block():
    model = seeded(SegNet)
    weights, names = model.state_dict(), [n for n, _ in model.named_modules()]
    with nansparse.enable(model):
        assert isinstance(model, SegNet)
        assert type(model).__name__ == "SegNet"
        assert [n for n, _ in model.named_modules()] == names
        assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
        assert nansparse.is_enabled(model)
        assert model.extra_repr() == ""
        assert repr(model).startswith("SegNet(")
    assert not nansparse.is_enabled(model)


def test_a_data_parallel_wrapper_is_looked_through():
    model, x = seeded(SegNet), image()
    wrapped = nn.DataParallel(model).eval()
    with nansparse.enable(wrapped) as record:
        wrapped(x)
    assert record.forwards == 1
    assert record.marked


def test_direct_calls_of_forward_are_caught():
    model, x = seeded(SegNet), image()
    with nansparse.enable(model) as record:
        assert torch.equal(model.forward(x), model(x))
    assert record.forwards == 2


def test_a_parametrization_registered_inside_the_block_on_the_model_itself_survives():
    model = nn.Conv2d(1, 2, 3).eval()
    x = image()
    x = x.masked_fill(x == 0, torch.nan)
    with nansparse.enable(model):
        parametrizations.weight_norm(model)
        model(x)
    assert not nansparse.is_enabled(model)
    assert torch.nn.utils.parametrize.is_parametrized(model, "weight")
    assert same(model, image()).shape == (2, 2, 14, 30)
