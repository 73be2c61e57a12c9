"""MONAI bundles: network, weights, preprocessing and window from one folder."""

import json

import nibabel
import numpy as np
import pytest
import torch

from nansparse import InputError
from nansparse.prediction import Grid, Job, ModelSource, Recipe, View, load_networks, predict_volume
from nansparse.prediction.bundles import bundle_window, has_preprocessing, is_bundle
from tests.prediction.nets import CUT, ball, bright3d, write_image

pytest.importorskip("monai", reason="pip install 'nansparse[monai]'")

CONFIG = {
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [8, 16, 8], "overlap": 0.5},
}


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIG))
    torch.save(bright3d().state_dict(), folder / "models" / "model.pt")
    return folder


def test_a_bundle_segments_with_its_own_preprocessing(bundle, tmp_path):
    assert is_bundle(bundle)
    assert not is_bundle(tmp_path)
    assert has_preprocessing(bundle)
    assert bundle_window(bundle) == (8, 16, 8)
    recipe = Recipe((View(ModelSource(str(bundle))),), Grid("bundle", bundle=bundle), window=(8, 16, 8))
    image = write_image(tmp_path / "image.nii.gz", ball())
    predict_volume(recipe, load_networks(recipe), Job(image, tmp_path / "labels.nii.gz"))
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "labels.nii.gz").dataobj), ball() > CUT)


def test_other_weights_and_arguments(bundle, tmp_path):
    state = {name: value + 1 for name, value in bright3d(3).state_dict().items()}
    torch.save(state, tmp_path / "mine.pt")
    model = ModelSource(str(bundle), {"out_channels": 3}, tmp_path / "mine.pt").load()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def change(bundle, **entries):
    (bundle / "configs" / "inference.json").write_text(json.dumps({**CONFIG, **entries}))


def test_bundles_that_will_not_do(bundle):
    source = ModelSource(str(bundle))
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(InputError, match="has no models/model.pt: name a file with --weights"):
        source.load()
    change(bundle, network_def={"_target_": "no.such.Net"})
    with pytest.raises(InputError, match="'network_def' of the bundle bundle could not be made"):
        source.load()
    change(bundle, network_def=None)
    with pytest.raises(InputError, match="has no 'network_def'"):
        source.load()
    (bundle / "configs" / "inference.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        source.load()


def test_preprocessing_that_fails(bundle, tmp_path):
    image = write_image(tmp_path / "image.nii.gz", ball())
    change(bundle, preprocessing={"_target_": "LoadImaged", "keys": "picture"})
    recipe = Recipe((View(ModelSource(str(bundle))),), Grid("bundle", bundle=bundle))
    with pytest.raises(InputError, match="the preprocessing of the bundle bundle failed"):
        predict_volume(recipe, load_networks(recipe), Job(image, tmp_path / "labels.nii.gz"))
    assert not (tmp_path / "labels.nii.gz").exists()
