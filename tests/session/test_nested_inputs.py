"""NaN in dataclasses, objects and dictionaries that a model is given."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

import nansparse
from nansparse import EnableError


@dataclasses.dataclass(frozen=True)
class Frozen:
    image: Tensor
    name: str = "t1"


@dataclasses.dataclass
class Deep:
    images: list
    more: dict


class Bag:
    def __init__(self, image: Tensor) -> None:
        self.image = image


class Record(OrderedDict):
    """A dictionary of a kind that torch's pytrees do not know."""


WAYS = {
    "frozen dataclass": (Frozen, lambda held: held.image),
    "nested dataclass": (lambda x: Deep([0, Frozen(x)], {}), lambda held: held.images[1].image),
    "dictionary in a dataclass": (lambda x: Deep([], {"x": (x,)}), lambda held: held.more["x"][0]),
    "object": (Bag, lambda held: held.image),
    "dictionary of its own class": (lambda x: Record(x=x), lambda held: held["x"]),
}


class Net(nn.Module):
    def __init__(self, find) -> None:
        super().__init__()
        self.conv, self.find = nn.Conv2d(1, 2, 3, padding=1), find

    def forward(self, held) -> Tensor:
        return self.conv(self.find(held))


@pytest.mark.parametrize(("hold", "find"), WAYS.values(), ids=WAYS.keys())
def test_nan_in_what_holds_tensors_is_found(hold, find):
    net = Net(find).eval()
    x = torch.rand(1, 1, 8, 8)
    x[..., :5] = torch.nan
    plain = Net(lambda x: x).eval()
    plain.load_state_dict(net.state_dict())
    with nansparse.enable(plain):
        expected = plain(x)
    held = hold(x)
    before = copy.copy(vars(held)) if hasattr(held, "__dict__") else None
    with nansparse.enable(net) as record:
        found = net(held)
    assert record.windows_skipped > 0
    assert torch.equal(found, expected)
    assert find(held) is x  # what the caller holds is as it was
    assert before is None or all(vars(held)[name] is value for name, value in before.items())


def test_what_holds_no_nan_is_handed_on_itself():
    seen = []
    net = Net(lambda held: seen.append(held) or held.image).eval()
    bag = Bag(torch.rand(1, 1, 8, 8))
    bag.self = bag  # no end
    with pytest.warns(nansparse.NothingToDoWarning), nansparse.enable(net):
        net(bag)
    assert seen == [bag]


def test_a_gradient_wanted_inside_is_refused_too():
    net = Net(lambda held: held.image).eval()
    with nansparse.enable(net), pytest.raises(EnableError, match=r"x.detach\(\)"):
        net(Frozen(torch.rand(1, 1, 8, 8, requires_grad=True)))


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class OldStyle(Base):
    def forward(self, x: Tensor) -> Tensor:
        return super(self.__class__, self).forward(x) + 1


def test_super_of_its_own_class():
    net, x = OldStyle().eval(), torch.rand(1, 1, 8, 8)
    x[..., :5] = torch.nan
    with nansparse.enable(net) as record:
        found = net(x)
        assert type(net) is not OldStyle
        assert net.__class__ is OldStyle
        assert isinstance(net, OldStyle)
    assert type(net) is OldStyle
    assert record.windows_skipped > 0
    assert found.isfinite().all()


def test_a_class_given_inside_the_block_stays_enabled_only_inside():
    net, x = OldStyle().eval(), torch.rand(1, 1, 8, 8)
    x[..., :5] = torch.nan

    class Derived(OldStyle):
        """As a parametrization of the model itself derives one."""

    with nansparse.enable(net) as record:
        net.__class__ = Derived
        net(x)
        assert record.called
    assert Derived.__bases__ == (OldStyle,)
    assert type(net) is Derived
