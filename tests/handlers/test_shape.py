"""Joining, splitting and what acts over the channels of each site."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.functional.drawing import values
from tests.handlers.caught import assert_same, caught, holed, taught

SHAPE = (2, 4, 6, 4)


@pytest.mark.parametrize("join", [torch.cat, torch.concat, torch.concatenate])
@pytest.mark.parametrize(
    "others", [("sites",), ("few", "all"), ("none", "channels"), ("one sample", "half")], ids=str
)
@pytest.mark.parametrize("dim", [1, -3])
def test_cat_of_different_sparsity(join, others, dim):
    parts = [holed(i, (2, 2 + i, 6, 4), pattern) for i, pattern in enumerate(("half", *others))]
    for order in (parts, parts[::-1]):
        found, record = caught(lambda *p: join(p, dim), *order)
        assert_same(found, torch.cat(order, dim))
        assert taught(record)
    assert_same(caught(lambda *p: join(p, axis=dim), *parts)[0], torch.cat(parts, dim))
    assert_same(caught(lambda *p: join(tensors=p, dim=dim), *parts)[0], torch.cat(parts, dim))


@pytest.mark.parametrize("join", [torch.cat, lambda p: torch.cat(p, 2), lambda p: torch.stack(p, 1)])
def test_joins_along_other_axes(join):
    parts = [holed(3, SHAPE, "half"), holed(4, SHAPE, "sites"), values(5, SHAPE, torch.float32)]
    assert_same(caught(lambda *p: join(p), *parts)[0], join(parts))


def test_cat_of_two_dtypes_promotes():
    parts = [holed(6, SHAPE, "half"), holed(7, SHAPE, "half", torch.float64)]
    assert_same(caught(lambda *p: torch.cat(p, 1), *parts)[0], torch.cat(parts, 1))


SPLITS = {
    "chunk": lambda x: x.chunk(3, 1),
    "torch.chunk": lambda x: torch.chunk(x, chunks=2, dim=-3),
    "split": lambda x: x.split(3, dim=1),
    "split in parts": lambda x: torch.split(x, [1, 2, 1], dim=1),
    "split by name": lambda x: torch.split(tensor=x, split_size_or_sections=2, dim=1),
    "slices": lambda x: (x[:, :2], x[:, 2:], x[:, 1:3, :, :], x[:, ::2]),
    "one channel": lambda x: (x[:, 0], x[:, :1], x[:, [2, 0]], x[..., 1]),
    "other axes": lambda x: (x[0], x[:, :, 1:], x[1:], x[:, None, :2], x[:, :, ::2, 1:3]),
    "unbind": lambda x: x.unbind(1),
    "along space": lambda x: x.chunk(2, 2),
    "a mask": lambda x: (x[x > 0], x[torch.tensor([1, 0]), :]),
}


@pytest.mark.parametrize("pattern", ["half", "channels", "sites"])
@pytest.mark.parametrize("split", SPLITS)
def test_taking_apart(split, pattern):
    x = holed(8, SHAPE, pattern)
    found, record = caught(SPLITS[split], x)
    expected = SPLITS[split](x)
    assert len(found) == len(expected)
    for part, wanted in zip(found, expected, strict=True):
        assert_same(part, wanted)
    assert taught(record) == (split.split()[0] in ("chunk", "torch.chunk", "split", "slices"))


def test_a_slice_that_leaves_nothing_at_a_site_goes_on_as_missing():
    """Half the channels are NaN at every site: that half alone has no site at all."""
    x = holed(9, SHAPE, "none")
    x[:, :2] = torch.nan
    weight = torch.ones(1, 2, 1, 1)
    found, _ = caught(lambda x: F.conv2d(x[:, :2], weight), x)
    assert found.isnan().all()


SOFTMAX = {
    "torch": lambda x: torch.softmax(x, 1),
    "method": lambda x: x.softmax(-3),
    "functional": lambda x: F.softmax(x, dim=1),
    "log": lambda x: F.log_softmax(x, 1),
    "to double": lambda x: torch.softmax(x, 1, torch.float64),
    "to double by name": lambda x: F.softmax(x, 1, dtype=torch.float64),
    "module": torch.nn.Softmax2d(),
    "over space": lambda x: F.softmax(x, 2),
}


@pytest.mark.parametrize("pattern", ["half", "sites", "all"])
@pytest.mark.parametrize("softmax", SOFTMAX)
def test_softmax_acts_at_each_site(softmax, pattern):
    x = holed(10, SHAPE, pattern)
    assert_same(caught(SOFTMAX[softmax], x)[0], SOFTMAX[softmax](x))


@pytest.mark.parametrize("pattern", ["half", "sites", "channels", "few"])
@pytest.mark.parametrize("call", [lambda x: x.argmax(1), lambda x: torch.argmax(x, dim=-3)])
def test_argmax_never_names_a_nan_channel(call, pattern):
    x = holed(11, SHAPE, pattern)
    expected = x.nan_to_num(-torch.inf).argmax(1)
    assert not x.isnan().all()
    assert_same(caught(call, x)[0], expected)
    assert_same(caught(lambda x: x.argmax(1, keepdim=True), x)[0], expected[:, None])


def test_argmax_after_softmax_after_argmax_over_partial_sites():
    """Softmax makes a partly NaN site wholly NaN; it is then class 0, as a missing site is."""
    x = holed(12, SHAPE, "few")
    labels, _ = caught(lambda x: x.softmax(1).argmax(1), x)
    nowhere = x.isnan().any(1)
    assert nowhere.any()
    assert (labels[nowhere] == 0).all()
    assert torch.equal(labels[~nowhere], x.argmax(1)[~nowhere])


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area", "nearest-exact"])
def test_interpolation_follows_ieee(mode):
    x = holed(13, SHAPE, "few")
    for size in ((12, 8), (3, 5)):
        expected = F.interpolate(x, size, mode=mode)
        assert_same(caught(lambda x, s=size: F.interpolate(x, s, mode=mode), x)[0], expected)


PADS = {
    "zeros": lambda x: F.pad(x, (1, 2, 0, 1)),
    "constant": lambda x: F.pad(x, (1, 1), value=3.0),
    "reflect": lambda x: F.pad(x, (1, 1, 2, 2), mode="reflect"),
    "replicate": lambda x: F.pad(x, (1, 1, 2, 2), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 1, 2, 2), mode="circular"),
    "crop": lambda x: F.pad(x, (-1, -1, -1, 0)),
    "shuffle": lambda x: F.pixel_shuffle(x, 2),
    "roll": lambda x: x.roll(1, 2),
    "flip": lambda x: x.flip(-1),
    "permute": lambda x: x.permute(0, 2, 3, 1).contiguous().flatten(0, 2),
    "transpose": lambda x: x.transpose(2, 3),
    "reshape": lambda x: x.reshape(2, -1).view(2, 2, -1)[:, 1],
    "tokens": lambda x: x.flatten(2).transpose(1, 2),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "unfold": lambda x: F.unfold(x, 3),
    "zeros like": torch.zeros_like,
    "max over channels": lambda x: x.max(1).values,
    "where": lambda x: torch.where(x > 0, x, torch.zeros(())),
    "is nan": torch.isnan,
}


@pytest.mark.parametrize("operation", PADS)
def test_everything_else_follows_ieee(operation):
    x = holed(14, SHAPE, "half")
    assert_same(caught(PADS[operation], x)[0], PADS[operation](x))


def test_attention_over_sites_keeps_rows_apart():
    """Tokens of channels: what attends to a NaN token is NaN, as IEEE has it."""
    x = holed(15, (2, 4, 3, 3), "few")

    def attend(x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return F.softmax(tokens @ tokens.transpose(1, 2) / 2.0, -1) @ tokens

    assert_same(caught(attend, x)[0], attend(x), 1e-5)
    attended = F.scaled_dot_product_attention
    assert_same(caught(lambda x: attended(x, x, x), x)[0], attended(x, x, x), 1e-5)
