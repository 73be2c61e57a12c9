"""Copies made while a model is enabled: replicas and deep copies, during the block and after it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import nansparse
from tests.session.nets import SegNet, image, seeded

quiet = pytest.mark.filterwarnings("ignore:nansparse. nothing to do. the model was never called")


def dense_run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: m._replicate_for_data_parallel()])
def test_copies_made_inside_the_block_are_enabled_and_end_with_it(copied):
    model, x = seeded(SegNet), image()
    dense = dense_run(model, x)
    with nansparse.enable(model) as record:
        expected = model(x)
        twin = copied(model)
        assert isinstance(twin, SegNet)
        assert torch.equal(twin(x), expected)
    assert record.forwards == 2
    assert torch.equal(dense_run(twin, x), dense)


def test_a_copy_that_outlived_the_block_is_an_ordinary_model():
    model, x = seeded(SegNet), image()
    with nansparse.enable(model):
        expected = model(x)
        twin = copy.deepcopy(model)
        assert nansparse.is_enabled(twin)
    assert not nansparse.is_enabled(twin)
    restored = pickle.loads(pickle.dumps(twin))
    assert type(restored) is SegNet
    assert type(copy.deepcopy(twin)) is SegNet
    with nansparse.enable(twin) as record:
        assert nansparse.is_enabled(twin)
        assert torch.equal(twin(x), expected)
    assert record.forwards == 1
    assert type(twin) is SegNet


@quiet
def test_a_copy_that_outlived_the_block_can_be_enabled_at_once():
    model, x = seeded(SegNet), image()
    with nansparse.enable(model):
        expected = model(x)
        twins = copy.deepcopy(model), copy.deepcopy(model)
    with nansparse.enable(twins[0]):
        assert torch.equal(twins[0](x), expected)
    with nansparse.enable(nn.Sequential(twins[1]).eval()):
        assert type(twins[1]) is SegNet
    assert type(twins[0]) is SegNet
