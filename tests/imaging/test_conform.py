"""The conformed grid: where it is, what it does to zeros, and the way back."""

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nansparse.errors import InputError
from nansparse.imaging import Volume, conform, conform_labels, restore_labels
from nansparse.imaging.conform import conformed_affine, resample


def random_volume(shape: tuple[int, int, int], affine: np.ndarray, seed: int = 0) -> Volume:
    data = np.random.default_rng(seed).integers(1, 1000, shape).astype(np.float32)
    return Volume(data, affine)


def placed(code: str, size: float = 1.0) -> np.ndarray:
    """An affine whose axes point where `code` says, for a volume of about 60 voxels."""
    affine = np.zeros((4, 4))
    for axis, letter in enumerate(code):
        row = "RL AP IS".replace(" ", "").index(letter) // 2
        affine[row, axis] = size if letter in "RAS" else -size
    affine[:3, 3] = (7.0, -11.0, 3.0)
    affine[3, 3] = 1
    return affine


def at(volume: Volume, point: np.ndarray) -> float:
    voxel = np.rint(np.linalg.inv(volume.affine) @ np.append(point, 1.0))[:3].astype(int)
    return float(volume.data[tuple(voxel)])


@pytest.mark.parametrize(
    ("code", "shape"),
    [("RAS", (20, 31, 24)), ("LIA", (40, 40, 41)), ("PSR", (9, 8, 7)), ("ILA", (30, 30, 30))],
)
def test_the_grid_is_256_lia_of_one_millimetre_around_the_centre(
    code: str, shape: tuple[int, int, int]
) -> None:
    native = random_volume(shape, placed(code, 1.3))
    result = conform(native)
    assert result.shape == (256, 256, 256)
    assert result.data.dtype == np.uint8
    assert nibabel.aff2axcodes(result.affine) == ("L", "I", "A")
    assert result.voxel_size == (1.0, 1.0, 1.0)
    centre = native.affine @ [*(s // 2 for s in shape), 1]
    np.testing.assert_allclose(result.affine @ [128, 128, 128, 1], centre, atol=1e-9)


@pytest.mark.parametrize("code", ["RAS", "LPS", "SRA"])
def test_an_image_of_one_millimetre_is_copied_voxel_for_voxel(code: str) -> None:
    native = random_volume((21, 30, 25), placed(code))
    native.data[:] = np.random.default_rng(1).integers(0, 256, native.shape)
    native = Volume(native.data.astype(np.uint8), native.affine)
    result = conform(native)
    for voxel in [(0, 0, 0), (20, 29, 24), (3, 17, 11), (20, 0, 24)]:
        point = (native.affine @ [*voxel, 1])[:3]
        assert at(result, point) == native.data[voxel]
    assert int(result.data.astype(np.int64).sum()) == int(native.data.astype(np.int64).sum())


def test_intensities_run_from_zero_to_255_robustly() -> None:
    native = random_volume((30, 30, 30), placed("RAS"))
    native.data[:5] = 0
    native.data[10, 10, 10] = 1e6  # one absurdly bright voxel must not darken the rest
    result = conform(native).data
    inside = result[result > 0]
    assert result.max() == 255
    bright = np.quantile(native.data[native.data > 0], 0.999)
    assert abs(np.median(inside) - np.median(native.data[native.data > 0]) / bright * 255) <= 1


def test_zero_stays_exactly_zero_and_negative_becomes_zero() -> None:
    native = random_volume((40, 40, 40), placed("RAS", 0.8))
    native.data[:, :20] = 0
    native.data[:5, 30:] = -40
    result = conform(native)
    # Native x lies along conformed axis 0, native y along axis 2; dark has only zeros or less around it.
    to_native = np.linalg.inv(native.affine) @ result.affine
    x = to_native[0, 0] * np.arange(256) + to_native[0, 3]
    y = to_native[1, 2] * np.arange(256) + to_native[1, 3]
    dark = (y <= 19)[None, :] | ((x <= 4)[:, None] & (y >= 30)[None, :]) | (y >= 40)[None, :]
    assert not result.data.swapaxes(1, 2)[dark].any()
    bright = (x >= 5)[:, None] & (x <= 39)[:, None] & ((y >= 20) & (y <= 39))[None, :]
    assert result.data.swapaxes(1, 2)[bright].max() > 200


def test_an_image_without_positive_voxels_is_refused() -> None:
    with pytest.raises(InputError, match="no voxel above zero"):
        conform(Volume(np.zeros((4, 4, 4), np.float32), np.eye(4)))


def test_conforming_twice_changes_nothing() -> None:
    once = conform(random_volume((30, 31, 32), placed("PIR", 0.9)))
    twice = conform(once)
    assert np.array_equal(once.data, twice.data)
    np.testing.assert_allclose(once.affine, twice.affine, atol=1e-9)


@settings(max_examples=6)
@given(
    code=st.sampled_from(["RAS", "LIA", "SPL", "ARI"]),
    shape=st.tuples(*[st.integers(9, 40)] * 3),
    size=st.sampled_from([1.0, 1.5, 2.0, 2.7]),
)
def test_labels_come_back_as_they_were(code: str, shape: tuple[int, int, int], size: float) -> None:
    # Voxels of 1 mm and more: no native voxel is missed on the finer grid.
    native = random_volume(shape, placed(code, size))
    labels = (native.data % 5).astype(np.int16)
    conformed = conform_labels(Volume(labels, native.affine))
    assert conformed.data.dtype == np.int16
    restored = restore_labels(conformed.data, native)
    assert restored.dtype == np.int16
    if size in (1.0, 2.0):
        assert np.array_equal(restored, labels)
    else:
        assert set(np.unique(restored)) <= set(range(5))
        assert (restored == labels).mean() > 0.97


def test_a_rotated_image_keeps_its_anatomy() -> None:
    angle = 0.3
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ placed("RAS", 1.2)
    data = np.full((50, 50, 50), 10, np.float32)
    data[30:36, 10:16, 20:26] = 200
    native = Volume(data, affine)
    result = conform(native)
    assert at(result, (affine @ [33, 13, 23, 1])[:3]) == 255
    assert 5 < at(result, (affine @ [15, 35, 30, 1])[:3]) < 20


def test_what_lies_outside_is_zero() -> None:
    labels = np.ones((300, 4, 4), np.uint8)
    native = Volume(labels, np.diag([1.0, 1, 1, 1]))
    restored = restore_labels(conform_labels(native).data, native)
    # The box covers 256 mm around voxel 150.
    assert np.array_equal(np.flatnonzero(restored[:, 0, 0]), np.arange(23, 279))


def test_restoring_needs_conformed_labels() -> None:
    with pytest.raises(
        InputError, match=r"expected conformed labels of shape \(256, 256, 256\), got \(4, 4, 4\)"
    ):
        restore_labels(np.zeros((4, 4, 4), np.uint8), random_volume((4, 4, 4), np.eye(4)))


def test_resampling_agrees_with_a_naive_loop() -> None:
    source = random_volume((5, 6, 7), placed("RAS", 1.5))
    target = placed("LPS", 1.1)
    result = resample(source.data, source.affine, (4, 5, 3), target, order=1)
    padded = np.pad(source.data, 2)
    to_source = np.linalg.inv(source.affine) @ target
    for voxel in np.ndindex(4, 5, 3):
        position = np.clip((to_source @ [*voxel, 1])[:3], -2, np.array(source.shape)) + 2
        low = np.minimum(np.floor(position).astype(int), np.array(padded.shape) - 2)
        share = position - low
        expected = sum(
            padded[tuple(low + corner)] * np.prod(np.where(corner, share, 1 - share))
            for corner in map(np.array, np.ndindex(2, 2, 2))
        )
        assert result[voxel] == pytest.approx(expected, abs=1e-2)


def test_a_flat_affine_is_refused() -> None:
    with pytest.raises(InputError, match="degenerate affine"):
        conformed_affine(random_volume((4, 4, 4), np.diag([1.0, 0, 1, 1])))
