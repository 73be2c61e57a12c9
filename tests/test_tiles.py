"""Tiles cover every kept window, and find it again."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from nansparse.activation import SparseActivation
from nansparse.plan import plan_windows
from nansparse.tiles import find_tiles
from nansparse.windows import convolution_windows


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, dict[str, int], tuple[int, ...]]:
    rank = draw(st.integers(2, 3))
    grid = [draw(st.integers(3, 9)) for _ in range(rank)]
    options = {
        "kernel": draw(st.integers(1, 3)),
        "stride": draw(st.integers(1, 3)),
        "padding": draw(st.integers(0, 2)),
    }
    x = torch.ones(draw(st.integers(1, 2)), 2, *grid)
    seed = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    share = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    gone = torch.rand(x.shape[0], 1, *grid, generator=seed) < share
    return x.masked_fill(gone, torch.nan), options, tuple(draw(st.integers(1, 4)) for _ in range(rank))


@given(cases())
def test_each_kept_window_has_a_place_of_its_own_in_its_tile(case) -> None:
    x, options, size = case
    activation = SparseActivation.from_dense(x)
    windows = convolution_windows(tuple(x.shape[2:]), *options.values())
    plan = plan_windows(activation, windows, 0.5)
    tiles = find_tiles(plan, size)
    assert len(tiles.places) == len(plan.out)
    assert len(tiles.places.unique()) == len(tiles.places)
    # A window reads the same rows through its tile as through the plan.
    for place, reads in zip(tiles.places.tolist(), plan.taps[0].table.tolist(), strict=True):
        tile, within = divmod(place, tiles.volume)
        image = tiles.table[tile].view(tiles.reach)
        for axis, (t, step) in enumerate(zip(size, windows.stride, strict=True)):
            rest = within // int(torch.tensor(size[axis + 1 :]).prod()) % t
            image = image.narrow(axis, rest * step, windows.kernel[axis])
        assert image.flatten().tolist() == reads


@given(cases())
def test_only_tiles_with_a_kept_window_are_active(case) -> None:
    x, options, size = case
    windows = convolution_windows(tuple(x.shape[2:]), *options.values())
    activation = SparseActivation.from_dense(x)
    plan = plan_windows(activation, windows, 0.5)
    tiles = find_tiles(plan, size)
    assert (tiles.places // tiles.volume).unique().tolist() == list(range(len(tiles)))
