"""Where models come from, and the one line that says why one does not."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import nansparse.zoo
from nansparse import InputError
from nansparse.prediction import ModelSource
from nansparse.prediction.models import spatial_axes, zoo_names
from nansparse.zoo.fastsurfer_labels import FULL_LABELS, SAGITTAL_LABELS, sagittal_classes
from tests.prediction.nets import slow

NETS = "tests.prediction.nets"
SMALL = {"num_filters": 4, "num_classes": 3}


def test_a_factory_with_arguments():
    model = ModelSource(f"{NETS}:pooled", {"axes": 3, "channels": 1}).load()
    assert spatial_axes(model) == 3
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_networks_of_the_zoo_by_name():
    state = torch.get_rng_state()
    assert isinstance(ModelSource("FastSurferVINN", SMALL).load(), nansparse.zoo.FastSurferVINN)
    assert torch.equal(torch.get_rng_state(), state)
    assert {"tissue", "FastSurferCNN", "FastSurferVINN"} <= set(zoo_names())
    tissue = ModelSource("tissue").load()
    expected = nansparse.zoo.load_tissue_model().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in tissue.state_dict().items())


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights(tmp_path, ending, wrapped):
    source = ModelSource(f"{NETS}:pooled")
    state = {f"module.{n}" if wrapped else n: v + 1 for n, v in source.load().state_dict().items()}
    path = tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save({"state_dict": state} if wrapped else state, path)
    loaded = pickle.loads(pickle.dumps(ModelSource(f"{NETS}:pooled", weights=path))).load().state_dict()
    assert all(torch.equal(value, state[f"module.{n}" if wrapped else n]) for n, value in loaded.items())


def test_weights_that_do_not_fit_are_named(tmp_path):
    state = ModelSource(f"{NETS}:pooled").load().state_dict()
    state["second.weight"] = state.pop("first.weight").contiguous()
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"missing \(first.weight\).*unexpected \(second.weight\)"):
        ModelSource(f"{NETS}:pooled", weights=tmp_path / "w.safetensors").load()


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (print, ("evil",))


def test_a_checkpoint_runs_no_code(tmp_path, capsys):
    torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match="evil.pt is not a readable PyTorch checkpoint"):
        ModelSource(f"{NETS}:pooled", weights=tmp_path / "evil.pt").load()
    assert "evil" not in capsys.readouterr().out


def test_modules_beside_the_user(tmp_path):
    (tmp_path / "net_beside_the_user.py").write_text(
        "from torch import nn\nclass Nets:\n    def one():\n        return nn.Conv3d(1, 2, 1)\n"
    )
    source = ModelSource("net_beside_the_user:Nets.one", search_path=str(tmp_path))
    assert isinstance(source.load(), nn.Conv3d)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "no.such.module:net",
            {},
            "cannot import 'no.such.module': ModuleNotFoundError: No module named 'no'",
        ),
        (f"{NETS}:absent", {}, "has no 'absent'"),
        (f"{NETS}:CUT", {}, "is a float, expected a function or class to call"),
        (f"{NETS}:no_model", {}, "gave a str, expected a torch.nn.Module"),
        (f"{NETS}:pooled", {"depth": 3}, "could not be made with.*unexpected keyword argument 'depth'"),
        ("FastSurferCNN", {"kernel_size": 2}, "kernel_size must be odd"),
        ("UNet9000", {}, "no model 'UNet9000': expected package.module:factory.*tissue, .*FastSurferCNN"),
    ],
)
def test_models_that_cannot_be_had(name, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        ModelSource(name, arguments).load()
    assert "\n" not in str(caught.value)


def test_fastsurfers_classes():
    assert (len(FULL_LABELS), len(SAGITTAL_LABELS)) == (79, 51)
    names = dict(zip(FULL_LABELS, sagittal_classes(), strict=True))
    # Both thalami share a class, and so do both lateral orbitofrontal cortices; the brain stem has its own.
    assert names[10] == names[49] == SAGITTAL_LABELS.index(49)
    assert names[1012] == names[2012] == SAGITTAL_LABELS.index(1012)
    assert names[16] == SAGITTAL_LABELS.index(16)
    assert set(sagittal_classes()) == set(range(51))


def test_a_subclass_of_a_convolution_says_what_a_network_sees():
    assert spatial_axes(nn.Sequential(nn.ReLU(), slow())) == 3
    assert spatial_axes(nn.ReLU()) is None
