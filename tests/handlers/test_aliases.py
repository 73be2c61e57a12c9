"""Changes in place: into plain tensors, through views, and where nansparse has to refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse import NansparseError
from tests.functional.drawing import values
from tests.handlers.caught import assert_same, caught, holed

SHAPE = (2, 4, 6, 4)
WEIGHT = values(0, (3, 8, 3, 3), torch.float32)


def into_a_buffer(x: Tensor, y: Tensor) -> Tensor:
    buffer = x.new_zeros(2, 8, 6, 4)
    buffer[:, :4] = x
    buffer[:, 4:] = y
    return buffer


def by_copy(x: Tensor, y: Tensor) -> Tensor:
    buffer = torch.zeros(2, 8, 6, 4)
    buffer[:, :4].copy_(x)
    buffer[:, 4:].copy_(y)
    return buffer


def through_a_kept_view(x: Tensor, y: Tensor) -> Tensor:
    buffer = torch.zeros(2, 8, 6, 4)
    low, high = buffer.chunk(2, 1)
    low.copy_(x)
    high += y
    return buffer


def out_of_cat(x: Tensor, y: Tensor) -> Tensor:
    buffer = torch.zeros(2, 8, 6, 4)
    torch.cat([x, y], 1, out=buffer)
    return buffer


def changed_again(x: Tensor, y: Tensor) -> Tensor:
    buffer = into_a_buffer(x, y)
    buffer.mul_(2)
    F.relu(buffer, inplace=True)
    buffer[:, 2] = 1.0
    buffer[:, 3:6].clamp_(max=0.5)
    torch.add(buffer, 1, out=buffer)
    return buffer


def overwritten(x: Tensor, y: Tensor) -> Tensor:
    buffer = into_a_buffer(x, y)
    buffer.zero_()
    buffer[:, :4] += 1
    return buffer


def tiled(x: Tensor, y: Tensor) -> Tensor:
    """As a sliding window puts patches together."""
    total, count = torch.zeros(2, 4, 6, 4), torch.zeros(2, 4, 6, 4)
    for top in (0, 2, 4):
        total[:, :, top : top + 2] += x[:, :, top : top + 2] + y[:, :, top : top + 2]
        count[:, :, top : top + 2] += 1
    total /= count
    return torch.cat([total, total], 1)


BUFFERS = (into_a_buffer, by_copy, through_a_kept_view, out_of_cat, changed_again, overwritten, tiled)


@pytest.mark.parametrize("second", ["sites", "none"])
@pytest.mark.parametrize("fill", BUFFERS, ids=lambda f: f.__name__)
def test_a_plain_buffer_takes_nan_and_is_a_marked_tensor_from_then_on(fill, second):
    x, y = holed(1, SHAPE, "half"), holed(2, SHAPE, second)
    assert_same(caught(fill, x, y)[0], fill(x, y))


@pytest.mark.parametrize("fill", [f for f in BUFFERS if f is not overwritten], ids=lambda f: f.__name__)
def test_a_convolution_knows_the_nan_of_a_plain_buffer(fill):
    from nansparse.functional import nan_conv

    x, y = holed(3, SHAPE, "half"), holed(4, SHAPE, "sites")
    found, record = caught(lambda x, y: F.conv2d(fill(x, y), WEIGHT), x, y)
    assert_same(found, nan_conv(fill(x, y), WEIGHT), 1e-5)
    (layer,) = [layer for layer in record.layers if layer.operation == "conv2d"]
    assert layer.engine != "torch"


def test_a_batch_stacked_sample_by_sample():
    x = holed(5, SHAPE, "half")

    def model(x):
        out = torch.empty(2, 4, 6, 4)
        for i, sample in enumerate(x):
            out[i] = sample * 2
        return F.relu(out)

    assert_same(caught(model, x)[0], F.relu(x * 2))


CHANGES = {
    "slice += number": lambda x: x.__setitem__((slice(None), slice(0, 2)), x[:, :2] + 1),
    "index = number": lambda x: x.__setitem__((slice(None), 1), 0.0),
    "mask = number": lambda x: x.__setitem__(x > 0, 5.0),
    "nan to number": lambda x: x.__setitem__(torch.isnan(x), 0.0),
    "fill": lambda x: x.fill_(2.0),
    "masked fill": lambda x: x.masked_fill_(x > 0, 1.0),
    "copy": lambda x: x.copy_(x * 3),
    "threshold": lambda x: F.threshold(x, 0.2, 9.0, inplace=True),
    "threshold by place": lambda x: F.threshold(x, 0.2, 9.0, True),
    "pow": lambda x: x.pow_(2),
    "nan_to_num": lambda x: x.nan_to_num_(4.0),
    "out": lambda x: torch.exp(x, out=x),
    "sum out": lambda x: torch.add(x, x, out=x),
}


@pytest.mark.parametrize("pattern", ["half", "sites"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_marked_tensor_changed_in_place(change, pattern):
    x = holed(6, SHAPE, pattern)

    def model(x):
        y = x * 1
        CHANGES[change](y)
        return y + 0

    assert_same(caught(model, x)[0], model(x))


def test_augmented_assignment_to_a_slice():
    def model(x):
        y = x * 1
        y[:, :2] += 1
        y[0] *= 2
        y[:, :, 1:3] -= y[:, :, 2:4]
        return y

    x = holed(7, SHAPE, "half")
    assert_same(caught(model, x)[0], model(x))


VIEWS = {
    "slice": lambda x: x[:, :2],
    "one channel": lambda x: x[:, 0],
    "a sample": lambda x: x[1],
    "part of space": lambda x: x[:, :, 1:2],
    "flattened": lambda x: x.flatten(1),
    "viewed": lambda x: x.view(2, -1),
    "permuted": lambda x: x.permute(0, 2, 3, 1),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "unbind": lambda x: x.unbind(0)[1],
    "select": lambda x: x.select(1, 2),
    "detach": lambda x: x.detach(),
    "expand": lambda x: x[None],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("nan_in_view", [True, False])
def test_a_view_changed_in_place_is_refused_when_the_tensor_is_used_again(view, nan_in_view):
    x = holed(8, SHAPE, "few") if nan_in_view else values(8, SHAPE, torch.float32)
    if not nan_in_view:
        # NaN in the first sample's third row only, where few of the views look.
        x[0, 3, 3] = torch.nan

    def model(x):
        y = x * 1
        VIEWS[view](y).mul_(2)
        return y + 0

    with pytest.raises(NansparseError, match="changed in place through a view"):
        caught(model, x)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_what_was_changed_in_place_is_refused(view):
    def model(x):
        y = x * 1
        seen = VIEWS[view](y)
        y.mul_(2)
        return seen + 0

    with pytest.raises(NansparseError, match="clone"):
        caught(model, holed(9, SHAPE, "few"))


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_changed_in_place_and_used_itself_is_right(view):
    def model(x):
        y = x * 1
        return VIEWS[view](y).mul_(2) + 0

    x = holed(10, SHAPE, "few")
    assert_same(caught(model, x)[0], model(x))


@pytest.mark.parametrize("view", VIEWS)
def test_a_copy_of_a_view_is_free_to_change(view):
    def model(x):
        y = x * 1
        seen = VIEWS[view](y).clone()
        seen.mul_(2)
        return y + 0, seen + 0

    x = holed(11, SHAPE, "few")
    for found, expected in zip(caught(model, x)[0], model(x), strict=True):
        assert_same(found, expected)


def test_the_shape_of_a_marked_tensor_cannot_change_in_place():
    with pytest.raises(NansparseError, match="shape"):
        caught(lambda x: (x * 1).unsqueeze_(0) + 0, holed(12, SHAPE, "half"))
