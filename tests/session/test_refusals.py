"""What cannot run is refused at once, in words that name the remedy."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nansparse
from nansparse import EnableError, EngineError, InputError
from tests.session.nets import SegNet, UNet, image, seeded


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "bold"}, "mode must be one of 'conservative', 'aggressive', got 'bold'"),
        ({"threshold": 0}, r"threshold must be in \(0, 1\].*got 0"),
        ({"threshold": 1.01}, r"threshold must be in \(0, 1\]"),
        ({"threshold": float("nan")}, "threshold must be a finite number"),
        ({"threshold": "half"}, "threshold must be a finite number, got 'half'"),
        ({"epsilon": -1e-9}, "epsilon must be >= 0"),
        ({"max_ties": 0}, "max_ties must be an integer >= 1"),
        ({"nan_probability": 0.5}, "needs mode='aggressive'"),
        ({"nan_probability": 0.5, "mode": "aggressive"}, r"explicit generator=torch.Generator\(\)"),
        ({"engine": "cudnn"}, "engine must be 'auto' or one of 'dense', 'gather'.*got 'cudnn'"),
        ({"engine": None}, "engine must be 'auto' or the name of an engine"),
        ({"output_nan": "zero"}, "output_nan"),
        ({"generator": 3}, "generator must be a torch.Generator"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        nansparse.enable(seeded(SegNet), **options)


@pytest.mark.parametrize("thing", [None, 3, F.relu, SegNet])
def test_what_is_no_module(thing):
    with pytest.raises(InputError, match="model must be a torch.nn.Module, got"):
        nansparse.enable(thing)


def test_training_mode():
    model = seeded(SegNet)
    model.second.train()
    with pytest.raises(EnableError, match=r"training mode \(module 'second'\): call model.eval\(\) first"):
        nansparse.enable(model)
    model.eval()
    with nansparse.enable(model):
        model.train()
        with pytest.raises(EnableError, match=r"call model.eval\(\) before the call"):
            model(image())
        model.eval()
        model(image())


def test_a_part_in_training_mode_that_acts_on_it():
    model, x = seeded(UNet), image()
    with nansparse.enable(model, mode="aggressive"):
        model.norm.train()
        with pytest.raises(EnableError, match=r"\(module 'norm'\): call model.eval\(\) before the call"):
            model(x)
        model.eval().down1.train()
        model(x)


@pytest.mark.parametrize("script", [lambda m, x: torch.jit.script(m), torch.jit.trace])
@pytest.mark.parametrize("inside", [True, False])
def test_torchscript(script, inside):
    model = script(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval(), image())
    with pytest.raises(EnableError, match="TorchScript hides its operations.*enable the Python model"):
        nansparse.enable(nn.Sequential(model).eval() if inside else model)


def test_a_compiled_model():
    model = seeded(SegNet)
    with pytest.raises(EnableError, match="enable the model before compiling it"):
        nansparse.enable(torch.compile(model))
    with pytest.raises(EnableError, match=r"\(module '0'\): enable the model before compiling it"):
        nansparse.enable(nn.Sequential(torch.compile(model)).eval())
    model.compile()
    with pytest.raises(EnableError, match="before compiling"):
        nansparse.enable(model)


class Around(nn.Module):
    """Calls another model inside its own forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x * 1.0)


@pytest.mark.parametrize("around", [False, True])
def test_compiling_an_enabled_model_is_refused(around):
    model, x = seeded(SegNet), image()
    wrapped = Around(model).eval() if around else model
    with nansparse.enable(model):
        expected = model(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(Exception, match=r"torch.compile traces a model that is enabled"):
                torch.compile(wrapped, backend="eager")(x)
        torch.testing.assert_close(model(x), expected)
    torch._dynamo.reset()


def test_pickling():
    model = seeded(SegNet)
    with nansparse.enable(model):
        model(image())
        with pytest.raises(EnableError, match=r"leave the block, or save its state_dict\(\)"):
            pickle.dumps(model)
        with pytest.raises(EnableError, match="state_dict"):
            torch.save(model, io.BytesIO())
        with pytest.raises(EnableError, match="pickled"):
            copy.copy(model)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
    pickle.loads(pickle.dumps(model))


def test_gradients_of_the_input():
    model, x = seeded(SegNet), image().requires_grad_()
    with nansparse.enable(model):
        with pytest.raises(EnableError, match=r"x.detach\(\)"):
            model(x)
        model(x.detach())
        with torch.no_grad():
            model(x)
        with torch.inference_mode():
            model(x)


@pytest.mark.parametrize("where", ["third.weight", "first.bias", "norm.running_mean"])
def test_nan_weights(where):
    class Net(SegNet):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(8)

    model = seeded(Net)
    model.state_dict()[where].view(-1)[0] = torch.nan
    with pytest.raises(EnableError, match=f"parameter or buffer '{where}' holds NaN: load sound weights"):
        nansparse.enable(model)


def test_a_forward_that_was_replaced_on_the_instance():
    model = seeded(SegNet)
    model.forward = lambda x: x
    with pytest.raises(EnableError, match="replaced on the instance"):
        nansparse.enable(model)


def test_a_sparse_input():
    model = seeded(SegNet)
    with (
        nansparse.enable(model),
        pytest.raises(InputError, match="strided.*torch.sparse_coo"),
    ):
        model(image().to_sparse())


class Broken(nn.Module):
    """Calls an operation with arguments that do not fit."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.conv2d(x, torch.ones(2, 3, 3, 3)),
        lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3, dtype=torch.float64)),
        lambda x: F.conv2d(x, torch.ones(2, 1, 50, 50)),
        lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3), torch.ones(5)),
        lambda x: F.conv3d(x, torch.ones(2, 1, 3, 3, 3)),
        lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3), stride=0),
        lambda x: F.conv2d(x, torch.ones(2, 1, 3, 3), padding="sane"),
        F.conv2d,
        lambda x: F.linear(x, torch.ones(2, 7)),
        lambda x: torch.cat([x, x[..., :3]], 1),
        lambda x: x + torch.ones(1, 1, 5, 5),
        lambda x: F.max_pool2d(x, 2, padding=3),
        lambda x: F.max_pool2d(x, 2, unknown=1),
        lambda x: x.view(7, 7),
        lambda x: F.relu(x, 1, 2, 3),
        lambda x: x.chunk(0, 1),
        lambda x: x[:, :, :, :, 0],
    ],
)
@pytest.mark.parametrize("background", [True, False])
def test_wrong_calls_fail_as_they_do_in_torch(call, background):
    """An error of nansparse or of torch; never an obscure one of the machinery between."""
    model, x = Broken(call).eval(), image()
    with pytest.raises((RuntimeError, TypeError, ValueError, IndexError)):
        model(x)
    x = x.masked_fill(x == 0, torch.nan) if background else x
    with (
        nansparse.enable(model, mode="aggressive"),
        pytest.raises((RuntimeError, TypeError, ValueError, IndexError)) as caught,
    ):
        model(x)
    assert "NoneType" not in str(caught.value)


def test_an_engine_that_is_broken_says_so_and_the_others_work(monkeypatch):
    from nansparse.engine import Registry

    class Point:
        name = "spongy"

        def load(self) -> Any:
            raise ImportError("pip install spongy")

    monkeypatch.setattr("nansparse.engine.entry_points", lambda group: [Point()])
    registry = Registry()
    assert registry.names() == []
    assert registry.faults() == {"spongy": "ImportError: pip install spongy"}
    with pytest.raises(EngineError, match="'spongy' could not be loaded: ImportError: pip install spongy"):
        registry.get("spongy")
    with pytest.raises(InputError, match="reinstall nansparse"):
        registry.get("gather")


def test_an_engine_name_can_be_taken_once():
    engine = nansparse.registry.get("dense")
    with pytest.raises(InputError, match="an engine named 'dense' is registered already"):
        nansparse.registry.register(engine)


class Later(nn.Conv2d):
    """Computes when its output is asked for."""

    def __init__(self, how: Callable[[Iterator[Tensor]], Any]) -> None:
        super().__init__(1, 2, 3)
        self.how = how

    def forward(self, x: Tensor) -> Any:
        return self.how(super(Later, self).forward(x) for _ in range(2))


async def _awaited(parts: Iterator[Tensor]) -> list[Tensor]:
    return list(parts)


@pytest.mark.parametrize(
    "how",
    [lambda parts: parts, lambda parts: {"parts": map(F.relu, parts)}, _awaited],
    ids=["generator", "map", "coroutine"],
)
@pytest.mark.filterwarnings("ignore:coroutine")
def test_an_output_that_is_computed_later(how):
    model, holed = Later(how).eval(), image().masked_fill(image() == 0, torch.nan)
    with nansparse.enable(model), pytest.raises(EnableError, match="return a list"):
        model(holed)
    model = Later(list).eval()
    with nansparse.enable(model, output_nan="keep"):
        assert all(part.isnan().any() for part in model(holed))
    model = Later(lambda parts: (next(parts), io.StringIO(), iter([1]))).eval()
    with nansparse.enable(model):
        assert model(holed)[0].isfinite().all()
