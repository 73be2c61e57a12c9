"""The shipped network: it loads, labels held-out slices well, and ignores what the background holds."""

from pathlib import Path

import pytest
import torch
from torch import nn

from nansparse.imaging import slabs
from nansparse.zoo import load_tissue_model, score_tissue_model, tissue
from nansparse.zoo.checkpoints import CheckpointError
from nansparse.zoo.tissue import new_tissue_model
from nansparse.zoo.tissue_data import PLANE, TissueData, held_out_slices, load_tissue_data
from nansparse.zoo.weights_file import save_weights


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return load_tissue_model()


@pytest.fixture(scope="module")
def data() -> TissueData:
    return load_tissue_data()


def test_loading_leaves_no_trace_and_gives_a_network_ready_to_run() -> None:
    before = torch.random.get_rng_state()
    model = load_tissue_model()
    assert torch.equal(before, torch.random.get_rng_state())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_grey_and_white_matter_of_held_out_slices(data: TissueData, monkeypatch: pytest.MonkeyPatch) -> None:
    # One slice of each slab; `nansparse zoo score` judges them all.
    monkeypatch.setattr(tissue, "held_out_slices", lambda: held_out_slices()[4::8])
    monkeypatch.setattr(tissue, "load_tissue_data", lambda: data)
    scored = score_tissue_model(progress=False)
    assert scored["slices"] == 4
    assert scored["outside"] < 400
    scores = scored["dice"]
    assert list(scores) == ["background", "csf", "grey", "white"]
    assert min(scores["grey"], scores["white"]) >= 0.95
    assert scores["background"] > 0.999


def test_background_is_label_0_wherever_and_whatever_it_is(model: nn.Module, data: TissueData) -> None:
    index = held_out_slices()[4]
    image, truth = data.inputs([index]), data.targets([index])
    empty = torch.zeros_like(image)
    replaced = image.clone()
    replaced[:, :, :, :30] = 0.4  # a bright band far above the head
    replaced[:, :, :20] = 0.1
    with torch.inference_mode():
        assert not model(empty).argmax(dim=1).any()
        plain, changed = model(image).argmax(dim=1), model(replaced).argmax(dim=1)
    assert not changed[:, :20].any()
    assert not changed[:, :, :30].any()
    assert int((plain != changed).sum()) <= 20
    assert int(((plain > 0) & (truth == 0)).sum()) < 100


def test_the_input_of_the_first_slice_is_padded_with_zeros(data: TissueData) -> None:
    assert not slabs(data.image.data, PLANE, [0])[0, :3].any()


def test_weights_of_any_width_are_taken(tmp_path: Path) -> None:
    narrow = new_tissue_model(5)
    save_weights(narrow, tmp_path / "narrow.safetensors")
    loaded = load_tissue_model(tmp_path / "narrow.safetensors")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in narrow.state_dict().items())
    save_weights(nn.Conv2d(1, 1, 1), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="missing"):
        load_tissue_model(tmp_path / "other.safetensors")


def test_a_missing_weights_file_is_named() -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at nowhere.safetensors"):
        load_tissue_model("nowhere.safetensors")
