"""Point-wise operations keep NaN where it is and equal the dense operation everywhere else."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nansparse.handlers.arguments import named_functions
from nansparse.handlers.pointwise import DROPOUT, INPLACE, UNARY
from tests.handlers.caught import assert_same, caught, holed, taught

PATTERNS = ("sites", "channels", "half", "all")
# What an operation wants beside the tensor.
EXTRA = {"clamp": (-0.5, 0.5), "clamp_min": (-0.5,), "clamp_max": (0.5,)}


def arguments(name: str) -> tuple:
    """Arguments after the tensor; dropout runs as in eval mode."""
    if name in DROPOUT:
        return (0.5, False)
    return EXTRA.get(name, ())


def plain(func, x: Tensor, *rest) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return func(x.clone(), *rest)


@pytest.mark.parametrize("name", [*UNARY, *DROPOUT])
def test_every_unary_operation_keeps_nan_and_equals_the_dense_one(name):
    forms = named_functions(name)
    assert forms, "no such operation in this torch"
    for func in forms:
        for pattern in PATTERNS:
            x = holed(1, (2, 4, 5, 3), pattern)
            expected = plain(func, x, *arguments(name))
            assert expected.isnan()[x.isnan()].all(), "does not map NaN to NaN"
            found, record = caught(func, x, *arguments(name))
            assert_same(found, expected)
            assert taught(record)


@pytest.mark.parametrize(
    "name", [n for n in [*UNARY, *DROPOUT] if not n.startswith("_") and hasattr(Tensor, f"{n}_")]
)
def test_in_place_methods_change_the_tensor_itself(name):
    func = getattr(Tensor, f"{name}_")
    x = holed(2, (2, 4, 5, 3), "half")
    rest = arguments(name)

    def model(x):
        y = x + 0
        returned = func(y, *rest)
        assert returned is y
        return y * 1

    expected = plain(func, x, *rest)
    before = x.clone()
    found, record = caught(model, x)
    assert_same(found, expected)
    assert taught(record)
    assert_same(x, before)


@pytest.mark.parametrize("name", [*INPLACE, *DROPOUT])
@pytest.mark.parametrize("by_name", [True, False])
def test_the_inplace_flag_changes_the_tensor_itself(name, by_name):
    func = getattr(F, name)
    defaults = {"leaky_relu": (0.2,), "elu": (1.0,), "celu": (1.0,), "hardtanh": (-1.0, 1.0)}
    rest = (0.5, False) if name in DROPOUT else defaults.get(name, ())
    x = holed(3, (2, 4, 5, 3), "half")

    def model(x):
        y = x * 1
        func(y, *rest, inplace=True) if by_name else func(y, *rest, True)
        return y * 1

    found, record = caught(model, x)
    assert_same(found, plain(func, x, *rest))
    assert taught(record)


@pytest.mark.parametrize(
    "layer", [nn.Dropout, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout]
)
def test_dropout_layers_in_eval_mode_do_nothing_and_say_nothing(layer):
    x = holed(4, (2, 4, 3, 3, 3) if layer is nn.Dropout3d else (2, 4, 5, 3))
    dropout = layer(0.5).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, record = caught(dropout, x)
    assert_same(found, x)
    assert taught(record)


def test_functional_dropout_left_on_drops_whole_channels():
    """Someone who calls F.dropout2d without `training=` gets it always: a channel goes or stays."""
    x = torch.ones(2, 8, 4, 4)
    x[..., 0, :] = torch.nan
    found, _ = caught(lambda x: F.dropout2d(x, 0.5), x)
    kept = found[..., 1:, :].flatten(2)
    assert (kept == kept[..., :1]).all()
    assert set(kept.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("weights", [1, 4])
def test_prelu_knows_its_channels(weights):
    layer = nn.PReLU(weights)
    layer.weight.data = torch.linspace(0.1, 0.4, weights)
    x = holed(5, (2, 4, 5, 3))
    found, record = caught(lambda x: layer(x).detach(), x)
    assert_same(found, F.prelu(x, layer.weight).detach())
    assert taught(record)


@pytest.mark.parametrize(
    "cast",
    [
        Tensor.double,
        Tensor.half,
        lambda x: x.to(torch.bfloat16),
        lambda x: x.to(x),
        lambda x: x.double().type_as(x),
    ],
)
def test_casts_keep_the_sites(cast):
    x = holed(6, (2, 4, 5, 3), "half")
    found, record = caught(cast, x)
    assert_same(found, cast(x))
    assert taught(record)


@pytest.mark.parametrize(
    "copy", [Tensor.clone, torch.clone, lambda x: torch.clone(input=x), Tensor.contiguous]
)
def test_copies_equal(copy):
    x = holed(7, (2, 4, 5, 3), "half")
    assert_same(caught(copy, x)[0], x)


def test_operations_with_a_tensor_for_an_option_are_exact():
    x, low = holed(8, (2, 4, 5, 3), "half"), torch.zeros(1, 4, 1, 1)
    assert_same(caught(lambda x: x.clamp(min=low), x)[0], x.clamp(min=low))


@pytest.mark.parametrize(
    "untaught",
    [
        lambda x: x**2,
        lambda x: F.threshold(x, 0.1, 20.0),
        lambda x: x.masked_fill(x > 0, 3.0),
        lambda x: -x > 0,
    ],
)
def test_what_nobody_taught_runs_dense_and_is_recorded(untaught):
    x = holed(9, (2, 4, 5, 3), "half")
    found, record = caught(untaught, x)
    assert_same(found, untaught(x))
    assert not taught(record)
