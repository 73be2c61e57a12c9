"""Networks that users run, from MONAI and nnU-Net's library: unchanged without NaN, by definition with it."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import nansparse
from nansparse import NothingToDoWarning, Policy
from tests.networks.nets import CASES, DENSIFYING, build
from tests.oracle import run_by_definition

SIDES = {2: 64, 3: 32}
EVERY = [*CASES, ("Quicknat", 2)]
every = pytest.mark.parametrize(("name", "rank"), EVERY, ids=[f"{name} {rank}D" for name, rank in EVERY])


def head(rank: int) -> Tensor:
    """Noise in a box, each sample in a place of its own, on black."""
    side, samples = SIDES[rank], 4 - rank
    x = torch.zeros(samples, 1, *[side] * rank, dtype=torch.float64)
    noise = 0.5 + torch.rand(
        2, 1, *[side // 2] * rank, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    for sample, start in enumerate((side // 4, side // 8)[:samples]):
        box = tuple(slice(start, start + side // 2) for _ in range(rank))
        x[(sample, 0, *box)] = noise[sample, 0]
    return x


@every
def test_without_nan_the_output_is_the_dense_one_to_the_bit(name: str, rank: int) -> None:
    model, x = build(name, rank), head(rank) + 0.1
    with torch.inference_mode():
        dense = model(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingToDoWarning)
            # Four cells never tie more than eight fold, so that pooling marks nothing.
            with nansparse.enable(model, max_ties=8):
                found = model(x)
    if name == "Quicknat":  # ReLU before pooling: zeros tie, and what was remembered is unpooled sparse
        torch.testing.assert_close(found, dense, rtol=0, atol=1e-12)
    else:
        assert torch.equal(found, dense)


@pytest.mark.parametrize(
    ("name", "rank", "threshold"),
    [*((*case, 0.5) for case in EVERY), *((*case, 1.0) for case in EVERY if case[1] == 2)],
)
def test_a_marked_background_gives_what_the_definitions_give(name: str, rank: int, threshold: float) -> None:
    model = build(name, rank)
    x = nansparse.mask_background(head(rank), margin=2)
    policy = Policy(threshold=threshold)
    expected = run_by_definition(model, policy, x)
    with torch.inference_mode(), nansparse.enable(model, threshold=threshold, output_nan="keep") as run:
        found = model(x)
    assert torch.equal(found.isnan(), expected.isnan())
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7, equal_nan=True)
    # Nothing is laid out between the first NaN and the output.
    laid_out = {layer.operation for layer in run.layers if layer.densified}
    assert (laid_out == {"reshape", "permute"}) if name in DENSIFYING else not laid_out
    assert f"{run.densified} densified" in run.summary()
    assert run.windows_skipped / run.windows > (0.45 if threshold < 1 else 0.05)


class Flipping(nn.Module):
    """A network behind an operation that nobody taught nansparse."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build("UNet", 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.flip(x, [-1]))


def test_a_network_that_lays_out_is_seen() -> None:
    model = Flipping().eval()
    with torch.inference_mode(), nansparse.enable(model) as run:
        model(nansparse.mask_background(head(2)))
    assert [layer.operation for layer in run.layers if layer.densified] == ["flip"]
    assert "flip" in run.summary()
    assert "densified 1x" in run.summary()
