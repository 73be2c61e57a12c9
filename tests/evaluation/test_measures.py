"""Distances, image measures and class agreement, each against a computation of another kind."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage import metrics as skimage

from nansparse.errors import InputError
from nansparse.evaluation.classes import compare_scores
from nansparse.evaluation.intensity import compare_images, psnr, ssim
from nansparse.evaluation.metrics import compare_labels, dice, mean_over_labels
from nansparse.evaluation.surface import diagonal, surface_distances

regions = hnp.arrays(bool, (5, 6, 4))
sizes = st.tuples(*[st.sampled_from([0.5, 1.0, 2.5])] * 3)


def by_distance_transform(first, second, spacing):
    """HD95 and mean surface distance from whole distance maps, as most packages compute them."""
    surfaces = [region & ~ndimage.binary_erosion(region) for region in (first, second)]
    there = ndimage.distance_transform_edt(~surfaces[1], sampling=spacing)[surfaces[0]]
    back = ndimage.distance_transform_edt(~surfaces[0], sampling=spacing)[surfaces[1]]
    return max(np.percentile(there, 95), np.percentile(back, 95)), np.concatenate([there, back]).mean()


@settings(max_examples=60)
@given(regions, regions, sizes)
def test_distances_are_those_of_distance_maps(first, second, spacing):
    found = surface_distances(first, second, np.diag([*spacing, 1.0]))
    if first.any() and second.any():
        assert found == pytest.approx(by_distance_transform(first, second, spacing))
    else:
        longest = math.dist((0, 0, 0), [4 * spacing[0], 5 * spacing[1], 3 * spacing[2]])
        assert found == pytest.approx((longest,) * 2 if first.any() or second.any() else (0.0, 0.0))


def test_shear_is_measured_in_the_world():
    affine = np.eye(4)
    affine[0, 1] = 1.0  # a step along y is also one along x
    first, second = np.zeros((2, 3, 3, 3), dtype=bool)
    first[0, 0, 0] = second[0, 1, 0] = True
    assert surface_distances(first, second, affine) == pytest.approx((math.sqrt(2),) * 2)
    assert diagonal((3, 3, 1), affine) == pytest.approx(math.dist((0, 0), (4, 2)))


def test_hd95_of_a_shifted_cube_is_the_shift():
    first, second = np.zeros((2, 20, 20, 20), dtype=bool)
    first[4:10, 4:10, 4:10] = second[7:13, 4:10, 4:10] = True
    hd95, mean = surface_distances(first, second, np.diag([2.0, 1.0, 1.0, 1.0]))
    assert hd95 == 6.0
    assert 0 < mean < 6.0


def test_empty_and_missed_labels_count():
    labels, truth = np.zeros((2, 4, 4, 4), dtype=np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    truth[1, 1, 1] = 1
    truth[2, 2, :2] = 2
    labels[3, 3, 3] = 3
    found = compare_labels(labels, truth, [1, 2, 3, 4], np.diag([1.0, 1.0, 2.0, 1.0]))
    longest = math.dist((0, 0, 0), (3, 3, 6))
    assert found[1]["dice"] == pytest.approx(2 / 3)
    assert (found[1]["volume_difference_mm3"], found[1]["volume_difference_percent"]) == (2.0, 100.0)
    assert found[2] == {  # missed
        "dice": 0.0, "hd95_mm": longest, "mean_distance_mm": longest,
        "volume_difference_mm3": -4.0, "volume_difference_percent": -100.0,
    }  # fmt: skip
    assert (found[3]["dice"], found[3]["hd95_mm"], found[3]["volume_difference_percent"]) == (0, longest, 100)
    assert found[4] == dict.fromkeys(found[4], 0.0) | {"dice": 1.0}
    mean = mean_over_labels(found)
    assert mean["dice"] == pytest.approx((2 / 3 + 0 + 0 + 1) / 4)
    assert mean["volume_difference_percent"] == pytest.approx(75.0)  # not cancelled


maps = hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 3))


@given(maps, maps)
def test_dice_is_the_same_in_both_places(labels, truth):
    found = compare_labels(labels, truth, range(4), np.eye(4))
    assert {number: m["dice"] for number, m in found.items()} == dice(labels, truth, range(4))


def test_flat_label_maps_have_no_distance():
    with pytest.raises(InputError, match="3D"):
        compare_labels(np.zeros((2, 2), dtype=int), np.zeros((2, 2), dtype=int), [1], np.eye(4))


images = st.sampled_from([(9, 12), (8, 7, 9)]).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float64, shape, elements=st.floats(0, 100, width=16))] * 2)
)


@settings(max_examples=40)
@given(images.filter(lambda pair: np.ptp(pair[1]) > 0.1 and not np.array_equal(*pair)))
def test_image_measures_are_those_of_scikit_image(pair):
    image, reference = pair
    extent = float(np.ptp(reference))
    assert ssim(image, reference) == pytest.approx(
        skimage.structural_similarity(image, reference, data_range=extent), abs=1e-9
    )
    assert psnr(image, reference) == pytest.approx(
        skimage.peak_signal_noise_ratio(reference, image, data_range=extent)
    )


def test_equal_and_flat_images_have_a_value():
    image = np.arange(64.0).reshape(8, 8)
    assert compare_images(image, image) == {"psnr_db": math.inf, "ssim": 1.0, "max_difference": 0.0}
    flat = compare_images(image, np.zeros((8, 8)))
    assert flat["psnr_db"] == -math.inf
    assert flat["ssim"] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        (np.ones((8, 8)), np.ones((8, 9))),
        (np.full((8, 8), np.nan), np.ones((8, 8))),
        (np.ones((3, 9)), np.ones((3, 9))),
    ],
)
def test_images_that_cannot_be_compared_are_refused(image, reference):
    with pytest.raises(InputError):
        compare_images(image, reference)


def test_classes_agree_by_rank():
    reference = torch.tensor([[6.0, 5, 4, 3, 2, 1, 0], [6.0, 5, 4, 3, 2, 1, 0]])
    scores = reference.clone()
    scores[1, 6] = 9.0  # a new best class pushes the fifth out
    found = compare_scores(scores, reference, torch.tensor([0, 0]))
    assert found == {
        "agreement": 0.5, "top5_agreement": pytest.approx(0.9), "max_difference": 9.0, "accuracy": 0.5,
    }  # fmt: skip
    assert compare_scores(scores[:, :3], reference[:, :3])["top5_agreement"] == 1.0
    for bad in ((scores, reference[:1]), (scores, reference, torch.tensor([0]))):
        with pytest.raises(InputError):
            compare_scores(*bad)
