"""The U-Net with max pooling: both ways up, 2D and 3D, by the definitions, and sparse throughout."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import nansparse
from nansparse import Policy
from nansparse.errors import InputError
from nansparse.zoo import UNet
from tests.oracle import run_by_definition
from tests.session.nets import seeded


def small(rank: int, *, unpool: bool) -> nn.Module:
    model = seeded(lambda: UNet(widths=(4, 6, 8), num_classes=3, rank=rank, unpool=unpool))
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if "running" in name:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model.double()


def head(rank: int) -> Tensor:
    x = torch.zeros(1, 1, *[16] * rank, dtype=torch.float64)
    x[(..., *[slice(4, 12)] * rank)] = 1 + torch.rand(
        [8] * rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return x


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("unpool", [False, True])
@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_it_follows_the_definitions_and_lays_nothing_out(rank: int, unpool: bool, mode: str) -> None:
    model, x = small(rank, unpool=unpool), nansparse.mask_background(head(rank), margin=1)
    expected = run_by_definition(model, Policy(mode=mode), x)
    with torch.inference_mode(), nansparse.enable(model, mode=mode, output_nan="keep") as run:
        found = model(x)
    assert torch.equal(found.isnan(), expected.isnan())
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert run.densified == 0
    assert run.windows_skipped / run.windows > 0.15


def test_conservative_mode_marks_only_where_something_is_unpooled() -> None:
    x = head(3)
    marked = {}
    for unpool in (False, True):
        model = small(3, unpool=unpool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", nansparse.NothingToDoWarning)
            with torch.inference_mode(), nansparse.enable(model) as run:
                model(x)
        marked[unpool] = run.marked
    assert marked == {False: False, True: True}


@pytest.mark.parametrize("options", [{"rank": 1}, {"widths": (8,)}, {"widths": (8, 0)}])
def test_impossible_networks_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected rank 2 or 3 and two or more widths"):
        UNet(**options)


def test_sides_that_cannot_be_pooled_are_refused() -> None:
    with pytest.raises(InputError, match=r"sides must be multiples of 4, got \(16, 16, 18\)"):
        small(3, unpool=False)(torch.zeros(1, 1, 16, 16, 18, dtype=torch.float64))
