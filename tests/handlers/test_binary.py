"""Operations on two activations, whatever shape and form the second has."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.functional.drawing import values
from tests.handlers.caught import assert_same, caught, holed, taught

SHAPE = (2, 4, 6, 4)
OPERATIONS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "add alpha": lambda x, y: torch.add(x, y, alpha=2),
    "rsub": torch.rsub,
}
BROADCAST = [
    (),
    (1,),
    (4,),
    (6, 4),
    (1, 4, 1, 1),
    (2, 4, 1, 1),
    (2, 1, 1, 1),
    (2, 1, 6, 4),
    (4, 1, 1),
    (1, 1, 6, 1),
    SHAPE,
]


@pytest.mark.parametrize("shape", BROADCAST, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_plain_operand_of_any_shape(operation, shape):
    run = OPERATIONS[operation]
    x, y = holed(1, SHAPE, "half"), values(2, shape, torch.float32)
    for pair in ((x, y), (y, x)):
        found, record = caught(run, *pair)
        assert_same(found, run(*pair))
        assert taught(record)


@pytest.mark.parametrize("number", [2, 0.5, -1])
@pytest.mark.parametrize("run", [operator.add, operator.mul, operator.sub, operator.truediv])
def test_a_number_on_either_side(run, number):
    x = holed(3, SHAPE, "half")
    for found, expected in (
        (caught(lambda x: run(x, number), x), run(x, number)),
        (caught(lambda x: run(number, x), x), run(number, x)),
    ):
        assert_same(found[0], expected)
        assert taught(found[1])


@pytest.mark.parametrize("first", ["sites", "half", "all", "one sample"])
@pytest.mark.parametrize("second", ["sites", "few", "all", "channels"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_two_activations_of_different_sparsity(operation, first, second):
    run = OPERATIONS[operation]
    x, y = holed(4, SHAPE, first), holed(5, SHAPE, second)
    found, record = caught(run, x, y)
    assert_same(found, run(x, y))
    assert taught(record)


@pytest.mark.parametrize("shape", [(2, 1, 6, 4), (2, 4, 1, 1), (1, 4, 6, 4), (6, 4)], ids=str)
def test_a_marked_operand_that_broadcasts(shape):
    x, y = holed(6, SHAPE, "half"), holed(7, shape, "half")
    for pair in ((x, y), (y, x)):
        assert_same(caught(torch.add, *pair)[0], torch.add(*pair))


@pytest.mark.parametrize("kernel", [(2, 2), (1, 2), (2, 1), (3, 2)], ids=str)
@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
@pytest.mark.parametrize("operation", ["+", "*", "maximum", "-"])
def test_a_lazily_unpooled_operand(operation, mode, kernel):
    """It is read only where the other operand has sites; what comes out is what the definitions say."""
    from nansparse.functional import nan_max_pool, nan_max_unpool

    run = OPERATIONS[operation]
    x = (values(8, (2, 4, 6, 4), torch.float32) * 2).round() / 2
    skip = holed(9, SHAPE, "half")

    def model(x, skip):
        pooled, indices = F.max_pool2d(x, kernel, return_indices=True)
        unpooled = F.max_unpool2d(pooled * 2, indices, kernel)
        return run(unpooled, skip), run(skip, unpooled), run(unpooled, unpooled), unpooled

    pooled = nan_max_pool(x, kernel, mode=mode)
    unpooled = nan_max_unpool(pooled.values * 2, pooled.indices, kernel, ties=pooled.ties)
    assert unpooled.isnan().any()
    expected = run(unpooled, skip), run(skip, unpooled), run(unpooled, unpooled), unpooled
    for found, wanted in zip(caught(model, x, skip, mode=mode)[0], expected, strict=True):
        assert_same(found, wanted)


IN_PLACE = {
    "+=": operator.iadd,
    "-=": operator.isub,
    "*=": operator.imul,
    "/=": operator.itruediv,
    "add_ alpha": lambda x, y: x.add_(y, alpha=3),
    "mul_": Tensor.mul_,
    "div_": Tensor.div_,
}


@pytest.mark.parametrize("operation", IN_PLACE)
@pytest.mark.parametrize("other", ["number", "plain", "marked", "channel", "wider dtype"])
def test_in_place_changes_the_tensor_itself_and_keeps_its_dtype(operation, other):
    run = IN_PLACE[operation]
    x = holed(10, SHAPE, "half")
    operands = {
        "number": 2.0,
        "plain": values(11, SHAPE, torch.float32),
        "marked": holed(12, SHAPE, "sites"),
        "channel": values(13, (1, 4, 1, 1), torch.float32),
        "wider dtype": values(14, SHAPE, torch.float64),
    }

    def model(x, y):
        z = x * 1
        assert run(z, y) is z
        return z * 1

    found, record = caught(model, x, operands[other])
    assert_same(found, run(x.clone(), operands[other]))
    assert taught(record)


def test_in_place_into_a_plain_tensor_carries_nan_into_it():
    x, y = values(15, SHAPE, torch.float32), holed(16, SHAPE, "half")

    def model(x, y):
        z = x * 1
        z += y
        return torch.relu(z)

    assert_same(caught(model, x, y)[0], torch.relu(x + y))


def test_in_place_that_would_grow_the_tensor_fails_as_in_torch():
    x, y = holed(17, (2, 1, 6, 4)), values(18, SHAPE, torch.float32)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        caught(lambda x, y: x.add_(y), x, y)


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.float64, torch.float32)], ids=str)
def test_types_promote_as_in_torch(dtypes):
    x, y = (holed(19 + i, SHAPE, "half", dtype) for i, dtype in enumerate(dtypes))
    assert_same(caught(torch.add, x, y)[0], x + y)
    assert_same(caught(torch.mul, x, y.bool())[0], x * y.bool())


def test_an_out_tensor_gets_the_result():
    x, y = holed(21, SHAPE, "half"), values(22, SHAPE, torch.float32)

    def model(x, y):
        buffer = torch.empty_like(y)
        torch.add(x, y, out=buffer)
        return buffer * 2

    assert_same(caught(model, x, y)[0], (x + y) * 2)
