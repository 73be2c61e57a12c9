"""Loading checkpoints: both formats, all or nothing, and errors that say what does not fit."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nansparse.errors import InputError, NansparseError
from nansparse.zoo import CheckpointError, FastSurferCNN, load_weights


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return FastSurferCNN(num_filters=4, num_classes=3)


def state() -> dict[str, Tensor]:
    return {name: torch.full_like(value, 3) for name, value in network().state_dict().items()}


def write(path: Path, content: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    elif path.suffix == ".pt":
        torch.save(content, path)
    else:
        torch.save({"model_state": content, "optimizer_state": {"lr": 0.1}, "epoch": 7}, path)
    return path


@pytest.mark.parametrize("ending", [".pkl", ".pt", ".safetensors"])
def test_every_parameter_and_buffer_is_loaded(ending: str, tmp_path: Path) -> None:
    model = network()
    load_weights(model, write(tmp_path / f"weights{ending}", state()))
    assert all(bool((value == 3).all()) for value in model.state_dict().values())


def test_the_errors_can_be_caught_by_either_name() -> None:
    assert issubclass(CheckpointError, InputError)
    assert issubclass(CheckpointError, NansparseError)


def test_a_misfit_lists_missing_unexpected_and_reshaped_and_changes_nothing(tmp_path: Path) -> None:
    content = state()
    for step in range(4):
        del content[f"decode1.conv{step}.weight"], content[f"decode1.conv{step}.bias"]
    content["head.weight"] = torch.zeros(1)
    content["classifier.conv.weight"] = torch.zeros(79, 4, 1, 1)
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, write(tmp_path / "w.pkl", content))
    text = str(caught.value)
    assert text.startswith("w.pkl does not fit FastSurferCNN: 8 missing (decode1.conv0.weight, ")
    assert ", and 4 more)" in text
    assert "1 unexpected (head.weight)" in text
    assert "1 of another shape (classifier.conv.weight is (79, 4, 1, 1), expected (3, 4, 1, 1))" in text
    assert "\n" not in text
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at .*nowhere.pkl"):
        load_weights(network(), tmp_path / "nowhere.pkl")


@pytest.mark.parametrize("ending", [".pkl", ".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"these are no weights", b"\x80\x02}q\x00."])
def test_a_file_of_something_else_is_refused_in_one_line(ending: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"w{ending}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="w") as caught:
        load_weights(network(), path)
    assert "\n" not in str(caught.value)


def test_a_cut_off_checkpoint_is_refused(tmp_path: Path) -> None:
    for ending in (".pkl", ".safetensors"):
        path = write(tmp_path / f"w{ending}", state())
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(CheckpointError, match="is not a readable"):
            load_weights(network(), path)


def test_another_ending_names_the_supported_ones(tmp_path: Path) -> None:
    path = tmp_path / "w.onnx"
    path.touch()
    with pytest.raises(CheckpointError, match=r"ending in .pt, .pth, .pkl or .safetensors"):
        load_weights(network(), path)


class Trap:
    """Unpickled by a careless loader, this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_no_code_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    path = tmp_path / "w.pkl"
    torch.save({"model_state": state(), "config": Trap(sprung)}, path)
    with pytest.raises(CheckpointError, match="is not a readable PyTorch checkpoint"):
        load_weights(network(), path)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()  # the trap works, so the assertion above can fail
