"""The job of one volume, from file to file."""

import json

import nibabel
import numpy as np
import pytest
import torch

from nansparse import InputError
from nansparse.prediction import (
    Background,
    Grid,
    Job,
    ModelSource,
    Recipe,
    View,
    load_networks,
    predict_volume,
)
from tests.prediction.nets import AFFINE, CUT, ball, write_image

NETS = "tests.prediction.nets"
NATIVE = Grid("native", intensity="none")
SLICED = Grid("native", "LIA", intensity="none")


def view(name, plane="", **options):
    arguments = options.pop("arguments", {})
    return View(ModelSource(f"{NETS}:{name}", arguments), plane, **options)


def predicted(recipe, folder, data, ending=".nii.gz", *, probabilities=False):
    """Predict an image; its labels file, its probabilities file, and the facts."""
    image = write_image(folder / f"image{ending}", data)
    shares = folder / f"shares{ending}" if probabilities else None
    job = Job(image, folder / f"labels{ending}", shares)
    facts = predict_volume(recipe, load_networks(recipe), job)
    json.dumps(facts)
    return nibabel.load(job.labels), nibabel.load(shares) if shares else None, facts


THREE = tuple(
    view("bright2d", plane, weight=w) for plane, w in (("coronal", 0.4), ("axial", 0.4), ("sagittal", 0.2))
)
RECIPES = {
    "coronal": Recipe((view("bright2d", "coronal"),), SLICED),
    "axial": Recipe((view("bright2d", "axial"),), SLICED, batch_size=5),
    "sagittal": Recipe((view("bright2d", "sagittal"),), SLICED),
    "three planes": Recipe(THREE, SLICED),
    "windows": Recipe((view("bright3d"),), NATIVE, window=(8, 8, 8)),
    "even windows": Recipe((view("bright3d"),), NATIVE, window=(8, 32, 4), overlap=0.0, gaussian=False),
    "whole": Recipe((view("bright3d"),), NATIVE, window=(0, 0, 0)),
    "turned": Recipe((view("bright3d"),), Grid("native", "RAS", intensity="none"), window=(16, 16, 16)),
    "one channel": Recipe((view("bright3d", arguments={"classes": 1}),), NATIVE, window=(8, 8, 8)),
    "background": Recipe((view("bright3d"),), NATIVE, window=(8, 8, 8), background=Background()),
    "background, slices": Recipe((view("bright2d", "axial"),), SLICED, background=Background(margin=2)),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.parametrize("ending", [".nii.gz", ".mgz"])
def test_known_labels_on_the_image_s_own_grid(tmp_path, recipe, ending):
    data = ball()
    labels, _, facts = predicted(recipe, tmp_path, data, ending)
    assert np.array_equal(np.asarray(labels.dataobj), data > CUT)
    np.testing.assert_allclose(labels.affine, AFFINE, atol=1e-6)
    assert labels.get_data_dtype() == np.uint8
    if recipe.background is not None:
        assert facts["macs_skipped"] > 0.3


def test_the_conformed_grid_and_back(tmp_path):
    data = np.zeros((40, 60, 50), dtype=np.float32)
    data[10:30, 10:50, 12:40] = 100.0
    image = write_image(tmp_path / "image.nii.gz", data, np.diag([1.5, 1.0, 1.2, 1.0]))
    recipe = Recipe((view("bright2d", "axial"),), batch_size=64, threads=2)
    predict_volume(recipe, load_networks(recipe), Job(image, tmp_path / "labels.nii.gz"))
    labels = np.asarray(nibabel.load(tmp_path / "labels.nii.gz").dataobj)
    assert labels.shape == data.shape
    expected = data > 0
    assert 2 * (expected & (labels > 0)).sum() / (expected.sum() + labels.sum()) > 0.95


@pytest.mark.parametrize("background", [None, Background(margin=3)])
def test_compared_with_dense_beside_it(tmp_path, background):
    pooled = view("pooled", arguments={"axes": 3, "channels": 1})
    recipe = Recipe((pooled,), NATIVE, background=background, window=(0, 0, 0), compare=True)
    data = ball((32, 48, 32))
    labels, _, facts = predicted(recipe, tmp_path, data)
    dense = pooled.source.load()(torch.from_numpy(data)[None, None]).argmax(1)[0].numpy()
    found = np.asarray(labels.dataobj)
    assert (
        facts["disagreeing_voxels"] == (found != dense).sum() > 0
    )  # skipped voxels are 0, here never dense's
    assert set(facts["dice"]) == {str(label) for label in np.union1d(found, dense) if label > 0}
    for label, overlap in facts["dice"].items():
        one, other = found == int(label), dense == int(label)
        assert overlap == 2 * (one & other).sum() / (one.sum() + other.sum())
    assert facts["dense_seconds"] > 0
    assert facts["speed_up"] == facts["dense_seconds"] / facts["network_seconds"]
    assert facts["macs_skipped"] > 0.3


def test_views_are_compared_as_a_whole(tmp_path):
    views = tuple(view("pooled", plane, weight=w) for plane, w in (("coronal", 0.4), ("sagittal", 0.2)))
    labels, shares, facts = predicted(
        Recipe(views, SLICED, compare=True), tmp_path, ball((31, 33, 30)), probabilities=True
    )
    assert np.array_equal(shares.get_fdata().argmax(-1), np.asarray(labels.dataobj))
    assert facts["disagreeing_voxels"] > 0


def test_probabilities_agree_with_labels(tmp_path):
    data = ball()
    recipe = Recipe((view("bright3d", arguments={"classes": 2}),), NATIVE, window=(8, 8, 8))
    labels, shares, _ = predicted(recipe, tmp_path, data, probabilities=True)
    found = shares.get_fdata()
    assert found.shape == (*data.shape, 2)
    assert shares.get_data_dtype() == np.float32
    np.testing.assert_allclose(found[..., 1], 1 / (1 + np.exp(CUT - data)), atol=1e-5)
    assert np.array_equal(found.argmax(-1), np.asarray(labels.dataobj))


def test_other_label_values_and_class_maps(tmp_path):
    turned = view("bright2d", "sagittal", arguments={"classes": 3}, classes=(0, 2, 1), weight=3.0)
    recipe = Recipe((turned,), SLICED, label_values=(7, 1002, 2035))
    data = ball()
    labels, _, _ = predicted(recipe, tmp_path, data)
    assert labels.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(labels.dataobj), np.where(data > CUT, 2035, 7))
    with pytest.raises(InputError, match="found class 2, and there are 2 label values"):
        predicted(Recipe((turned,), SLICED, label_values=(7, 1002)), tmp_path, data)
    far = view("bright2d", "sagittal", classes=(0, 5))
    with pytest.raises(InputError, match="class map names class 5.*has 2 classes"):
        predicted(Recipe((far,), SLICED), tmp_path, data)


def test_a_mask_marks_what_it_leaves_out(tmp_path):
    data = ball() + np.float32(0.05)  # no background of a round value
    (tmp_path / "masks").mkdir()
    write_image(tmp_path / "masks" / "image.nii.gz", ball() > 0.6)
    recipe = Recipe(
        (view("bright3d"),), NATIVE, window=(32, 32, 32), background=Background(mask=tmp_path / "masks")
    )
    labels, _, facts = predicted(recipe, tmp_path, data)
    assert np.array_equal(np.asarray(labels.dataobj), (ball() > 0.6) & (data > CUT))
    assert facts["macs_skipped"] > 0.5
    (tmp_path / "masks" / "image.nii.gz").unlink()
    with pytest.raises(InputError, match="no mask for image.nii.gz at"):
        predicted(recipe, tmp_path, data)


def test_random_marking_is_the_same_again(tmp_path):
    options = {"mode": "aggressive", "nan_probability": 0.5, "threshold": 0.2}
    arguments = {"axes": 3, "channels": 1}
    recipe = Recipe((view("pooled", arguments=arguments),), NATIVE, policy=options, window=(32, 32, 32))
    first, _, facts = predicted(recipe, tmp_path, ball((32, 32, 32)))
    found = np.asarray(first.dataobj)
    again, _, facts_again = predicted(recipe, tmp_path, ball((32, 32, 32)))
    assert facts["windows_skipped"] == facts_again["windows_skipped"] > 0
    assert np.array_equal(found, np.asarray(again.dataobj))


@pytest.mark.parametrize(
    ("views", "options", "message"),
    [
        ([view("pooled", "axial", arguments={"axes": 3})], {}, "is a 3D network: it sees windows, not axial"),
        ([view("bright2d")], {"grid": NATIVE}, "is a 2D network: name the plane"),
        (
            [view("bright2d", "axial", arguments={"channels": 4})],
            {},
            "takes 4 input channels; one image gives an odd",
        ),
        ([view("pooled", arguments={"axes": 3, "channels": 2})], {"grid": NATIVE}, "takes 2 input channels"),
        ([view("bright2d", "axial")], {"thickness": 5}, "takes 3 slices per input, not 5"),
    ],
)
def test_networks_that_cannot_see_the_volume(views, options, message):
    with pytest.raises(InputError, match=message):
        load_networks(Recipe(tuple(views), **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.0}, r"overlap must be in \[0, 1\)"),
        ({"activation": "relu"}, "activation must be one of"),
        ({"window": (8, 0, 8)}, "window must be three numbers"),
        ({"policy": {"threshold": 0.0}}, "threshold must be in"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "gpu"}, "gpu"),
        ({"threads": 0}, "must be 1 or more"),
        ({"grid": Grid("native", "RAS")}, "planes are those of a grid in LIA order"),
    ],
)
def test_wrong_recipes(options, message):
    with pytest.raises(InputError, match=message):
        Recipe((view("bright2d", "axial"),), **options)


def test_scores_on_another_grid_are_refused(tmp_path):
    recipe = Recipe((view("halved"),), NATIVE, window=(8, 8, 8))
    with pytest.raises(InputError, match=r"was given \(1, 1, 8, 8, 8\) and returned \(1, 2, 8, 8, 4\)"):
        predicted(recipe, tmp_path, ball())
    assert not (tmp_path / "labels.nii.gz").exists()
