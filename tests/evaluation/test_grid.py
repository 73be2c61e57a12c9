"""Grids and masks: exactly the cells asked for, and every mistake told in one line."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nansparse.errors import InputError
from nansparse.evaluation.axes import LAYER_AXES, MODEL_AXES
from nansparse.evaluation.grid import Grid, load_grid, read_changes
from nansparse.evaluation.masks import MASKS, nan_mask
from nansparse.evaluation.presets import LAYER_PRESETS, MODEL_PRESETS, find_preset


def test_blocks_are_products_and_their_union_holds_each_cell_once():
    blocks = (
        {"nan_ratio": [0, 0.5], "channels": ["8", "8->16"]},
        {"nan_ratio": [0.5], "channels": ["8"], "stride": [1, 2]},
    )
    cells = Grid(LAYER_AXES, blocks, 2).cells(threads=3)
    chosen = [(c["channels"], c["nan_ratio"], c["stride"]) for c in cells]
    assert sorted(chosen) == [
        ("8", 0.0, 1),
        ("8", 0.5, 1),
        ("8", 0.5, 2),
        ("8->16", 0.0, 1),
        ("8->16", 0.5, 1),
    ]
    assert all(set(cell) == set(LAYER_AXES) and cell["threads"] == 3 for cell in cells)


def test_every_preset_has_valid_cells():
    for presets in (LAYER_PRESETS, MODEL_PRESETS):
        for grid in presets.values():
            assert grid.cells(threads=1)
    with pytest.raises(InputError, match="'slow'.*quick, engines, gpu, paper, full"):
        find_preset(LAYER_PRESETS, "slow")


def test_the_full_sweep_of_models_holds_every_combination_asked_for():
    cells = MODEL_PRESETS["full"].cells(threads=1)
    plain = [c for c in cells if c["background"] == "none"]
    assert len(plain) == 2 * 6 * 4 * 2
    assert {c["threshold"] for c in plain} == {0.25, 0.5, 0.65, 0.75, 0.85, 1.0}
    assert {c["epsilon"] for c in plain} == {1e-7, 1e-5, 1e-3, 1e-2}


def test_a_toml_file_is_the_grid_it_says(tmp_path):
    file = tmp_path / "g.toml"
    file.write_text(
        'repeats = 4\n[[grid]]\nsize = ["8x8", "4x4x4"]\nnan_ratio = 0.5\n[[grid]]\nstride = [2]\n'
    )
    grid = load_grid(file, LAYER_AXES, repeats=9)
    assert grid.repeats == 4
    assert [(c["size"], c["stride"]) for c in grid.cells(1)] == [("8x8", 1), ("4x4x4", 1), ("256x256", 2)]
    changed = grid.with_axes(read_changes(["threshold=0.5,1"], LAYER_AXES), repeats=2)
    assert (len(changed.cells(1)), changed.repeats) == (6, 2)


BAD_FILES = {
    "": "at least one block",
    "[[grid]]\nwidth = [1]": "unknown axis 'width'",
    "[[grid]]\nstride = [0]": "'stride'.*>= 1, got 0",
    "[[grid]]\nstride = []": "no value",
    "[grid]\nstride = [1]": r"\[\[grid\]\]",
    "[[grid]]\nnan_ratio = [1.5]": "'nan_ratio'",
    "[[grid]]\nthreshold = [0]": "'threshold'",
    "[[grid]]\nsize = ['8']": "'size'",
    "[[grid]]\nnan_ratio = [true]": "'nan_ratio'",
    "[[grid]]\nsize = [[8]]": "'size'",
    "[[grid]]\nsize = ['0x8']": "'size'",
    "[[grid]]\nmask = ['ring']": "'mask'.*blob",
    "[[grid]]\ndevice = ['cuda:99']": "'device'",
    "repeats = 1\n[[grid]]\nstride = [1]": "repeats",
    "speed = 1": "'speed'",
    "[[grid": "no TOML",
    "[[grid]]\nnan_ratio = [" + "0.5," * 1000 + "]\nthreshold = [" + "0.5," * 1000 + "]": "1000000 cells",
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.items())
def test_bad_grids_are_told_in_one_line(tmp_path, text, words):
    (tmp_path / "g.toml").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        load_grid(tmp_path / "g.toml", LAYER_AXES, repeats=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["stride", "stride=", "stride=1,x", "=1", "epsilon=-1", "background=-2", "mode=both"]
)
def test_bad_changes_are_told(text):
    with pytest.raises(InputError):
        read_changes([text], MODEL_AXES)


@given(
    st.sampled_from(sorted(set(MASKS) - {"brain"})),
    st.sampled_from([(7, 5), (4, 5, 3), (1, 6)]),
    st.floats(0, 1),
    st.integers(1, 3),
)
def test_masks_have_the_share_asked_for(shape, grid, ratio, channels):
    mask = nan_mask(shape, channels, grid, ratio, torch.Generator().manual_seed(0))
    places = mask if shape == "cells" else mask[:, 0]
    assert mask.shape == (1, channels, *grid)
    assert int(places.sum()) == round(ratio * places.numel())
    assert shape == "cells" or bool((mask == mask[:, :1]).all())


def test_brain_masks_keep_the_brain_in_2d_and_3d():
    generator = torch.Generator().manual_seed(0)
    for grid in ((64, 64), (32, 32, 32)):
        mask = nan_mask("brain", 1, grid, 0.6, generator)[0, 0]
        assert round(float(mask.float().mean()), 2) == 0.6
        assert not bool(mask[tuple(size // 2 for size in grid)])
        assert all(
            bool(mask[(0,) * axis + (slice(None),) + (0,) * (len(grid) - axis - 1)].all())
            for axis in range(len(grid))
        )


@pytest.mark.parametrize(("shape", "ratio"), [("ring", 0.5), ("blob", 1.1), ("blob", -0.1)])
def test_masks_that_are_none_are_refused(shape, ratio):
    with pytest.raises(InputError):
        nan_mask(shape, 1, (4, 4), ratio, torch.Generator())
