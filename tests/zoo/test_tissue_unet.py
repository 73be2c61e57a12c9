"""The 3D tissue network: what is held out stays unseen, one seed gives one result, mistakes are named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nansparse.errors import InputError
from nansparse.imaging import Volume
from nansparse.zoo import load_weights, tissue_unet, tissue_volume
from nansparse.zoo.checkpoints import read_state
from nansparse.zoo.tissue_data import TissueData
from nansparse.zoo.tissue_unet import new_tissue_unet, score_tissue_unet, train_tissue_unet
from nansparse.zoo.tissue_volume import FIRST, HELD_OUT, LAST, halve, tissue_crops


def fake_volume() -> tuple[torch.Tensor, torch.Tensor]:
    """Thirty-two cells wide, as long as the template; the labels follow from the image."""
    labels = torch.zeros(32, 32, 128, dtype=torch.int64)
    labels[6:14, 6:26, FIRST:LAST] = 1
    labels[14:26, 6:26, FIRST:LAST] = 2
    labels[18:24, 8:24, FIRST:LAST] = 3
    return (labels / 4.0)[None, None], labels[None]


@pytest.fixture(autouse=True)
def small_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tissue_unet, "load_tissue_volume", fake_volume)


def test_half_the_resolution_keeps_whole_cells_only() -> None:
    image = torch.full((4, 4, 4), 255, dtype=torch.uint8)
    image[0, 0, 0] = 0
    image[2:, 2:, 2:] = 51
    half = halve(image)
    assert half.shape == (1, 1, 2, 2, 2)
    assert half[0, 0, 0, 0, 0] == 0
    assert half[0, 0, 1, 1, 1] == pytest.approx(0.2)
    assert half[0, 0, 0, 0, 1] == 1


def test_labels_at_half_the_resolution_are_those_of_most_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2, :2, :2] = 2
    labels[0, 0, 0] = 3
    labels[2:, 2:, 2:] = 1
    image = np.full((4, 4, 4), 255, np.uint8)
    image[2, 2, 2] = 0
    data = TissueData(Volume(image, np.eye(4)), Volume(labels, np.eye(4)))
    monkeypatch.setattr(tissue_volume, "load_tissue_data", lambda: data)
    half, found = tissue_volume.load_tissue_volume()
    assert (half.shape, found.shape) == ((1, 1, 2, 2, 2), (1, 2, 2, 2))
    # Where a cell is empty it is background, whatever the maps say of the others.
    assert (int(found[0, 0, 0, 0]), int(found[0, 1, 1, 1]), int(found.count_nonzero())) == (2, 0, 1)


def test_crops_hold_nothing_that_is_held_out(generator: torch.Generator) -> None:
    image, labels = fake_volume()
    labels[:] = torch.arange(128)  # every cell knows how far to the front it lies
    seen = torch.cat(
        [
            truth.flatten()
            for _, truth in tissue_crops(image, labels, steps=150, batch_size=2, crop=24, generator=generator)
        ]
    )
    assert (int(seen.min()), int(seen.max())) == (FIRST, HELD_OUT - 1)


def test_variations_keep_labels_in_place_and_the_background_level(generator: torch.Generator) -> None:
    volume = fake_volume()
    levels, orders = set(), set()
    for images, truth in tissue_crops(*volume, steps=60, batch_size=2, crop=24, generator=generator):
        for image, labels in zip(images[:, 0], truth, strict=True):
            outside = image[labels == 0]
            assert outside.min() == outside.max()
            levels.add(float(outside.max()))
            # Contrast and noise are mild: brighter tissue stays brighter on average.
            means = [float(image[labels == label].mean()) for label in (1, 2, 3)]
            assert means == sorted(means)
            first, second = ((labels == label).nonzero()[:, 0].double().mean() for label in (1, 2))
            orders.add(bool(first < second))
    assert 0.0 in levels
    assert len(levels) > 1
    assert orders == {False, True}, "all crops are mirrored, or none"


def train(path: Path, **options: int) -> dict[str, torch.Tensor]:
    settings = {"steps": 1, "batch_size": 1, "crop": 16, "threads": 1, **options}
    train_tissue_unet(path, progress=False, **settings)
    return read_state(path)


def test_the_seed_decides_and_the_callers_state_is_left_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    first, again = train(tmp_path / "a.safetensors"), train(tmp_path / "b.safetensors")
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = train(tmp_path / "c.safetensors", seed=1)
    assert not torch.equal(first["down.0.0.weight"], other["down.0.0.weight"])
    load_weights(new_tissue_unet(), tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 20}, "crop must be a multiple of 8 and at most 74, got 20"),
        ({"crop": 80}, "at most 74, got 80"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(options: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        train(tmp_path / "a.safetensors", **options)
    assert not list(tmp_path.iterdir())


def test_the_front_alone_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Oracle(torch.nn.Module):
        """Right in front, wrong behind."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            labels = (x[:, 0] * 4).round().long()
            labels[..., :HELD_OUT] = 0
            labels[..., LAST:] = 1
            return torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()

    monkeypatch.setattr(tissue_unet, "new_tissue_unet", Oracle)
    monkeypatch.setattr(tissue_unet, "load_weights", lambda model, path: None)
    scores = score_tissue_unet("weights")
    assert scores["slices"] == LAST - HELD_OUT
    assert scores["dice"] == {"background": 1, "csf": 1, "grey": 1, "white": 1}
    assert scores["outside"] == 0


def test_there_is_nothing_to_judge_without_weights() -> None:
    with pytest.raises(InputError, match="nansparse zoo train unet"):
        score_tissue_unet(None)
