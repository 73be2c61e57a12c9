"""Training: one seed, one result; nothing half-written; mistakes are named before minutes are spent."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nansparse.errors import InputError
from nansparse.imaging import Volume
from nansparse.zoo import training
from nansparse.zoo.checkpoints import read_state
from nansparse.zoo.fitting import Schedule, fit
from nansparse.zoo.tissue_data import TissueData
from nansparse.zoo.training import tissue_loss, train_tissue_model
from nansparse.zoo.weights_file import threads_of


def fake_data() -> TissueData:
    labels = np.zeros((48, 48, 256), np.uint8)
    labels[10:40, 10:40] = 1
    labels[14:36, 14:36] = 2
    labels[20:30, 20:30] = 3
    image = np.array([0, 60, 140, 220], np.uint8)[labels]
    return TissueData(Volume(image, np.eye(4)), Volume(labels, np.eye(4)))


@pytest.fixture(autouse=True)
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "load_tissue_data", fake_data)


def train(path: Path, **options: int) -> dict[str, torch.Tensor]:
    settings = {"steps": 3, "batch_size": 2, "crop": 32, "threads": 1, **options}
    train_tissue_model(path, progress=False, **settings)
    return read_state(path)


def test_the_seed_decides_and_the_callers_state_is_left_alone(tmp_path: Path) -> None:
    random_state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    first, again = train(tmp_path / "a.safetensors"), train(tmp_path / "b.safetensors")
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = train(tmp_path / "c.safetensors", seed=1)
    assert not torch.equal(first["encode1.conv0.weight"], other["encode1.conv0.weight"])


def test_the_width_is_free(tmp_path: Path) -> None:
    assert train(tmp_path / "a.safetensors", num_filters=6)["encode2.conv0.weight"].shape[0] == 6


def test_training_lowers_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    model = training.new_tissue_model()
    training.initialise(model, generator)
    images, labels = next(training._batches(fake_data(), 1, 1, 32, generator))
    with torch.no_grad():
        before = float(tissue_loss(model(images), labels))
    with threads_of(1):
        schedule = Schedule(12, 4e-3, weight_decay=1e-4, rising=0.15, bfloat16=True)
        fit(model, [(images, labels)] * 12, tissue_loss, schedule, progress=False)
    with torch.no_grad():
        after = float(tissue_loss(model.train()(images), labels))
    assert not model.eval().training
    assert after < 0.6 * before


def test_the_loss_of_a_perfect_and_of_a_wrong_answer() -> None:
    labels = torch.arange(4).view(1, 2, 2)
    right = 50.0 * F.one_hot(labels, 4).movedim(-1, 1)
    assert float(tissue_loss(right, labels)) == pytest.approx(0, abs=1e-4)
    assert float(tissue_loss(right.roll(1, dims=1), labels)) == pytest.approx(51, abs=1e-3)


def test_an_interrupted_training_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupt)
    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.pt", {}, "output must end in .safetensors, got a.pt"),
        ("nowhere/a.safetensors", {}, "the folder .*nowhere does not exist"),
        ("a.safetensors", {"steps": 0}, "steps must be at least 1, got 0"),
        ("a.safetensors", {"num_filters": 0}, "num_filters must be at least 1, got 0"),
        ("a.safetensors", {"threads": 0}, "threads must be at least 1, got 0"),
        ("a.safetensors", {"crop": 100}, "crop must be a multiple of 16, got 100"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())
