"""Cutting volumes into slabs and windows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nansparse import InputError
from nansparse.imaging import slabs
from nansparse.imaging.slices import PLANES
from nansparse.prediction.pieces import count_windows, gaussian_weights, slice_pieces, window_pieces


def drawn(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_slabs_are_those_of_the_imaging_room(plane, batch_size):
    volume = (drawn(5, 6, 7) * 255).to(torch.uint8)
    expected = slabs(volume.numpy(), plane, thickness=3)
    cut = [p.cut(volume / 255.0) for p in slice_pieces((5, 6, 7), plane, 3, batch_size, 1.0)]
    assert max(len(part) for part in cut) == batch_size
    torch.testing.assert_close(torch.cat(cut), expected)


@pytest.mark.parametrize("plane", PLANES)
def test_the_middle_slice_goes_back_to_its_place(plane):
    volume, total = drawn(5, 6, 7), torch.zeros(1, 5, 6, 7)
    for piece in slice_pieces(volume.shape, plane, 5, 2, 1.0):
        for place, sample in zip(piece.places, piece.cut(volume), strict=True):
            place(total)[0] += sample[2]
    assert torch.equal(total[0], volume)


def test_a_slab_is_empty_only_where_all_its_slices_are():
    volume = torch.ones(5, 1, 4)
    volume[:, 0, 0] = torch.nan  # in every slice
    volume[2, 0, 1] = torch.nan  # in the middle one only
    volume[:2, 0, 2] = torch.nan  # at the first slice everything it can see
    found = torch.cat([p.cut(volume) for p in slice_pieces((5, 1, 4), "sagittal", 3, 5, 1.0, -7.0)])
    # Axes: slice, channel, then A and I of the slice.
    assert found[:, :, 0].isnan().all()
    assert found[2, :, 1, 0].tolist() == [1.0, -7.0, 1.0]
    assert found[0, :, 2].isnan().all()
    assert found[1, :, 2, 0].tolist() == [-7.0, -7.0, 1.0]
    assert found[0, :, 3, 0].tolist() == [-7.0, 1.0, 1.0]


@given(
    size=st.lists(st.integers(1, 17), min_size=3, max_size=3),
    side=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    overlap=st.floats(0, 0.9),
)
def test_windows_cover_every_voxel_and_overlap_as_asked(size, side, overlap):
    window = tuple(min(pair) for pair in zip(size, side, strict=True))
    covered = torch.zeros(1, *size)
    pieces = list(window_pieces(tuple(size), window, overlap, gaussian=False))
    for piece in pieces:
        assert piece.cut(covered[0]).shape == (1, 1, *window)
        piece.places[0](covered).add_(1)
    assert covered.min() >= 1
    assert len(pieces) == count_windows(tuple(size), window, overlap)


def test_neighbouring_windows_share_what_was_asked():
    firsts = []
    volume = torch.arange(40.0).view(40, 1, 1)
    for piece in window_pieces((40, 1, 1), (10, 1, 1), 0.5, gaussian=False):
        firsts.append(int(piece.cut(volume)[0, 0, 0, 0, 0]))
    assert firsts == [0, 5, 10, 15, 20, 25, 30]


def test_the_middle_of_a_window_counts_most_and_a_lone_window_evenly():
    weights = gaussian_weights((5, 4, 8))
    assert weights.shape == (5, 4, 8)
    assert weights.min() > 0
    assert weights[2, 1, 3] == weights.max()
    assert torch.equal(weights, weights.flip(0, 1, 2))
    expected = np.exp(-0.5 * ((np.arange(8) - 3.5) / 1.0) ** 2)
    np.testing.assert_allclose(weights[2, 1] / weights[2, 1, 3], expected / expected[3], rtol=1e-2, atol=2e-3)
    (only,) = window_pieces((5, 4, 8), (5, 4, 8), 0.5, gaussian=True)
    assert only.weight == 1.0


def test_even_slabs_are_refused():
    with pytest.raises(InputError, match="thickness must be odd.*got 4"):
        list(slice_pieces((5, 5, 5), "axial", 4, 1, 1.0))
