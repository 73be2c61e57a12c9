"""What comes out of a model: no NaN unless asked for, in any container, dressed as the input was."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nansparse
from nansparse import UnexpectedNaNError
from nansparse.marked import MarkedTensor
from tests.session.nets import NETS, SegNet, image, image_for, seeded

Pair = namedtuple("Pair", "a b")


@dataclasses.dataclass
class Plain:
    logits: Tensor
    extra: dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Frozen:
    logits: Tensor


@dataclasses.dataclass(slots=True)
class Slots:
    logits: Tensor
    label: str = "x"


class OwnDict(dict):
    """As model outputs of several libraries are."""


class OwnList(list):
    pass


class Holder:
    def __init__(self, x: Tensor) -> None:
        self.logits, self.parts = x, [x]


CONTAINERS: dict[str, Any] = {
    "tuple": lambda x: (x, x * 1),
    "list": lambda x: [x],
    "dict": lambda x: {"a": x, "b": {"c": [x]}},
    "named tuple": lambda x: Pair(x, x),
    "ordered dict": lambda x: OrderedDict(a=x),
    "dataclass": lambda x: Plain(x, {"a": x}),
    "frozen dataclass": Frozen,
    "slots": Slots,
    "dataclass in a list": lambda x: [Plain(x, {"a": x * 1})],
    "own dict": lambda x: OwnDict(a=x),
    "own list": lambda x: OwnList([x]),
    "object": Holder,
    "with None": lambda x: (x, None, 3, "text"),
}


class Containing(nn.Module):
    def __init__(self, pack: Any) -> None:
        super().__init__()
        self.net, self.pack = SegNet(), pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(self.net(x))


def tensors(value: Any) -> list[Tensor]:
    """Every tensor anywhere in a value."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors(v)]
    if isinstance(value, Slots):
        return tensors(value.logits)
    return [t for v in getattr(value, "__dict__", {}).values() for t in tensors(v)]


@pytest.mark.parametrize("wanted", [0.0, -3.5, "keep"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_is_opened(container, wanted):
    model = seeded(lambda: Containing(CONTAINERS[container]))
    plain, x = seeded(SegNet), image()
    with nansparse.enable(plain, output_nan="keep"):
        marked = plain(x).detach()
    assert marked.isnan().any()
    with nansparse.enable(model, output_nan=wanted):
        out = model(x)
    found = tensors(out)
    assert found
    assert type(out) is type(CONTAINERS[container](x))
    expected = marked if wanted == "keep" else marked.nan_to_num(wanted)
    for tensor in found:
        assert not isinstance(tensor, MarkedTensor)
        torch.testing.assert_close(tensor.detach(), expected, equal_nan=True)


@pytest.mark.parametrize("name", NETS)
def test_nothing_leaks_by_default(name):
    model, x = seeded(NETS[name]), image_for(name)
    with nansparse.enable(model, mode="aggressive"):
        assert model(x).isfinite().all()
        assert model(x.masked_fill(x == 0, torch.nan)).isfinite().all()


def test_a_label_map_is_made_of_real_classes():
    model = seeded(lambda: Containing(lambda y: (y.argmax(1), y.softmax(1))))
    with nansparse.enable(model, output_nan="keep"):
        labels, scores = model(image())
    marked = scores.isnan().any(1)
    assert marked.any()
    assert (labels[marked] == 0).all()
    assert torch.equal(labels[~marked], scores.argmax(1)[~marked])


def test_what_a_hook_keeps_turns_dense_after_the_run():
    model, kept, x = seeded(SegNet), [], image()
    model.second.register_forward_hook(lambda module, args, out: kept.append(out.detach().cpu().numpy()))
    model.third.register_forward_hook(lambda module, args, out: kept.append(out))
    with nansparse.enable(model):
        model(x.masked_fill(x == 0, torch.nan))
    inside, after = kept
    assert inside.shape == (2, 8, 8, 16)
    assert bool((after + 0).isnan().any())
    assert repr(after).startswith("tensor(")
    assert type(after * 2) is Tensor
    assert after.mean().isnan()


class Image(Tensor):
    """A tensor with metadata, as MONAI's MetaTensor is one."""

    affine: Tensor
    meta: dict[str, Any]


def with_metadata(x: Tensor) -> Image:
    made = x.as_subclass(Image)
    made.affine, made.meta = torch.eye(4), {"name": "scan"}
    return made


@pytest.mark.parametrize("background", [False, True], ids=["numbers", "NaN background"])
@pytest.mark.parametrize("gradients", [False, True], ids=["frozen", "trainable"])
def test_a_tensor_subclass_comes_out_with_its_metadata(background, gradients):
    model = seeded(SegNet).requires_grad_(gradients)
    x = image()
    x = with_metadata(x.masked_fill(x == 0, torch.nan) if background else x)
    with nansparse.enable(model):
        out = model(x)
    assert type(out) is Image
    assert torch.equal(out.affine, torch.eye(4))
    assert out.meta == {"name": "scan"}
    assert not out.as_subclass(Tensor).isnan().any()
    out.meta["name"] = "labels"
    assert x.meta == {"name": "scan"}


def test_gradients_are_refused_when_someone_asks_for_them():
    model = seeded(SegNet)
    with nansparse.enable(model):
        out = model(image())
    assert out.requires_grad
    with pytest.raises(nansparse.EnableError, match="inference only"):
        out.sum().backward()
    with nansparse.enable(model), torch.no_grad():
        assert not model(image()).requires_grad
    with nansparse.enable(model), torch.inference_mode():
        assert model(image()).is_inference()


class Faulty(nn.Module):
    """Makes NaN out of numbers somewhere."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.net, self.where = SegNet(), where
        self.after = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "before":
            x = (x - 2).log()
        x = self.net(x)
        if self.where == "after":
            x = self.after((x - 1000).log())
        return (x - 1000).sqrt() if self.where == "end" else x


@pytest.mark.parametrize("where", ["before", "after", "end"])
@pytest.mark.parametrize("background", [False, True])
def test_nan_made_from_numbers_is_reported_and_no_mask(where, background):
    model, x = seeded(lambda: Faulty(where)), image()
    x = x.masked_fill(x == 0, torch.nan) if background else x
    with nansparse.enable(model), pytest.raises(UnexpectedNaNError, match="NaN"):
        model(x)


def test_nan_at_the_end_of_a_run_that_marked_nothing_is_reported():
    model = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.Threshold(100.0, -1.0), nn.LogSigmoid()))
    model.append(type("Log", (nn.Module,), {"forward": lambda self, x: x.log()})().eval())
    with nansparse.enable(model), pytest.raises(UnexpectedNaNError, match="output"):
        model(image())


@pytest.mark.parametrize("weight", [torch.inf, 3e38])
def test_infinite_weights_and_overflow_are_reported(weight):
    model, x = seeded(SegNet), image()
    with torch.no_grad():
        # Two channels overflow, and the last convolution subtracts one from the other.
        model.third.weight[:2, 0] = weight
        model.third.weight[:2, 1] = -weight
        model.last.weight.copy_(torch.tensor([1.0, -1.0] * 8).view(2, 8, 1, 1) * 10)
    with nansparse.enable(model), pytest.raises(UnexpectedNaNError, match="overflow"):
        model(x * 1e3)


def test_float16_overflow_is_reported():
    model = seeded(SegNet).half()
    with torch.no_grad():
        model.third.weight.mul_(3e4)
        model.last.weight.copy_(torch.tensor([1.0, -1.0] * 8).view(2, 8, 1, 1))
    with nansparse.enable(model), pytest.raises(UnexpectedNaNError):
        model(image(dtype=torch.float16) * 100)
