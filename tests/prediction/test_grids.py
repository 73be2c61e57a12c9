"""The grid a network sees, and the way back."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from nansparse import InputError
from nansparse.imaging import Volume
from nansparse.prediction.grids import Grid, prepare, restore
from tests.prediction.nets import AFFINE, ball

HERE = Path("image.nii.gz")


def volume(shape=(6, 7, 8), affine=AFFINE):
    return Volume(np.random.default_rng(0).random(shape, dtype=np.float32) + 0.1, affine)


@pytest.mark.parametrize("orientation", ["", "RAS", "LIA", "PIR", "SLP"])
def test_turning_is_exact_both_ways(orientation):
    native = volume()
    prepared = prepare(native, HERE, Grid("native", orientation, intensity="none"))
    if orientation:
        assert "".join(nibabel.aff2axcodes(prepared.affine)) == orientation
    assert np.array_equal(restore(prepared.data, prepared), native.data)
    # A voxel stays where it is in the world.
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(native.data, native.affine))
    again = nibabel.as_closest_canonical(nibabel.Nifti1Image(prepared.data, prepared.affine))
    np.testing.assert_allclose(again.affine, image.affine, atol=1e-6)
    assert np.array_equal(again.get_fdata(), image.get_fdata())


def test_another_spacing_keeps_the_place_and_the_size():
    native = Volume(ball((20, 22, 18)), AFFINE)
    prepared = prepare(native, HERE, Grid("native", "RAS", (0.5, 0.5, 0.5), "none"))
    np.testing.assert_allclose(np.linalg.norm(prepared.affine[:3, :3], axis=0), 0.5)
    assert prepared.data.shape == (40, 45, 66)  # millimetres over half a millimetre, to whole voxels

    def centre(data, affine):
        points = np.argwhere(data > 0.5)
        return affine[:3, :3] @ points.mean(0) + affine[:3, 3]

    np.testing.assert_allclose(centre(prepared.data, prepared.affine), centre(native.data, AFFINE), atol=0.2)
    labels = (prepared.data > 0.5).astype(np.int32)
    back = restore(labels, prepared)
    assert back.dtype == np.int32
    expected = native.data > 0.5
    assert 2 * (expected & (back > 0)).sum() / (expected.sum() + back.sum()) > 0.93


def test_intensities():
    native = volume()
    native.data[0] = 0.0
    unit = prepare(native, HERE, Grid("native")).data
    assert unit.min() == 0.0
    assert unit.max() == 1.0
    scored = prepare(native, HERE, Grid("native", intensity="zscore")).data
    assert np.all(scored[0] == 0)
    assert abs(scored[1:].mean()) < 1e-5
    assert abs(scored[1:].std() - 1) < 1e-5
    assert np.array_equal(prepare(native, HERE, Grid("native", intensity="none")).data, native.data)
    flat = prepare(Volume(np.ones((2, 2, 2)), AFFINE), HERE, Grid("native", intensity="zscore")).data
    assert np.isfinite(flat).all()
    with pytest.raises(InputError, match="no voxel above zero"):
        prepare(Volume(np.zeros((2, 2, 2)), AFFINE), HERE, Grid("native"))


def test_the_conformed_grid_is_scaled_to_one():
    prepared = prepare(volume(), HERE, Grid())
    assert prepared.data.shape == (256, 256, 256)
    assert prepared.data.dtype == np.float32
    assert 0.9 < prepared.data.max() <= 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mni"}, "grid must be one of"),
        ({"kind": "native", "orientation": "RAX"}, "unknown orientation 'RAX'"),
        ({"kind": "native", "orientation": "RLS"}, "unknown orientation"),
        ({"kind": "native", "orientation": "RASI"}, "unknown orientation"),
        ({"kind": "native", "spacing": (1.0, 0.0, 1.0)}, "spacing must be millimetres > 0"),
        ({"kind": "native", "intensity": "dark"}, "intensity must be one of unit, zscore, none"),
        ({"orientation": "RAS"}, "need grid 'native'"),
    ],
)
def test_wrong_grids(options, message):
    with pytest.raises(InputError, match=message):
        Grid(**options)
