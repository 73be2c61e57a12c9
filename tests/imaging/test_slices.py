"""Slices with their neighbours, and the axis order of each plane."""

import numpy as np
import pytest
import torch

from nansparse.errors import InputError
from nansparse.imaging import from_slices, slabs, to_slices

VOLUME = np.random.default_rng(0).integers(0, 256, (5, 6, 9)).astype(np.uint8)


def naive_slab(volume: np.ndarray, plane: str, index: int, thickness: int) -> np.ndarray:
    pick = {
        "coronal": lambda a: volume[:, :, a],
        "axial": lambda i: volume[:, i, :].T,
        "sagittal": lambda s: volume[s, :, :].T,
    }[plane]
    count = {"coronal": 9, "axial": 6, "sagittal": 5}[plane]
    half = thickness // 2
    blank = np.zeros_like(pick(0))
    layers = [pick(k) if 0 <= k < count else blank for k in range(index - half, index + half + 1)]
    return np.stack(layers).astype(np.float32) / 255


@pytest.mark.parametrize("plane", ["coronal", "axial", "sagittal"])
@pytest.mark.parametrize("thickness", [1, 3, 7])
def test_slabs_agree_with_a_naive_loop(plane: str, thickness: int) -> None:
    count = len(to_slices(VOLUME, plane))
    result = slabs(VOLUME, plane, thickness=thickness)
    expected = np.stack([naive_slab(VOLUME, plane, index, thickness) for index in range(count)])
    assert result.dtype == torch.float32
    assert np.array_equal(result.numpy(), expected)
    some = slabs(VOLUME, plane, [count - 1, 0], thickness=thickness)
    assert np.array_equal(some.numpy(), expected[[count - 1, 0]])


def test_the_scale_is_0_to_1() -> None:
    volume = np.array([0, 255], np.uint8).reshape(1, 1, 2)
    assert slabs(volume, "coronal", thickness=1).flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("plane", ["coronal", "axial", "sagittal"])
def test_slices_come_back_as_the_volume(plane: str) -> None:
    assert np.array_equal(from_slices(to_slices(VOLUME, plane), plane), VOLUME)


def test_mistakes_are_named() -> None:
    with pytest.raises(InputError, match="plane is 'frontal'; supported: coronal, axial, sagittal"):
        slabs(VOLUME, "frontal")
    with pytest.raises(InputError, match="thickness must be odd, .*got 6"):
        slabs(VOLUME, "coronal", thickness=6)
    with pytest.raises(InputError, match="slice 9 is outside the volume, which has 9 coronal slices"):
        slabs(VOLUME, "coronal", [9])
    with pytest.raises(InputError, match="expected a conformed uint8 volume, got float32"):
        slabs(VOLUME.astype(np.float32), "coronal")
