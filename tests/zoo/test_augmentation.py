"""Variations of training slices: zero background stays zero, labels move with the image."""

import pytest
import torch
from torch import Tensor

from nansparse.zoo.augmentation import augment


def square(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A bright square with a label on zero background."""
    images = torch.zeros(n, 7, 96, 96)
    images[:, :, 30:70, 30:70] = 0.3 + 0.6 * torch.rand(n, 7, 40, 40, generator=generator)
    labels = torch.zeros(n, 96, 96, dtype=torch.int64)
    labels[:, 30:70, 30:70] = 2
    return images, labels


def test_most_backgrounds_stay_exactly_zero_and_some_are_changed(generator: torch.Generator) -> None:
    images, labels = augment(*square(64, generator), crop=48, generator=generator)
    background = (labels == 0)[:, None].expand_as(images)
    zero = [bool((image[mask] == 0).all()) for image, mask in zip(images, background, strict=True)]
    assert 30 <= sum(zero) < 60


def test_every_image_stays_in_range_and_labels_follow_the_image(generator: torch.Generator) -> None:
    images, labels = augment(*square(16, generator), crop=64, generator=generator)
    assert images.shape == (16, 7, 64, 64)
    assert labels.shape == (16, 64, 64)
    assert labels.dtype == torch.int64
    assert 0.0 <= float(images.min()) <= float(images.max()) <= 1.0
    for image, label in zip(images, labels, strict=True):
        clean = bool((image[:, label == 0] == 0).all())
        # Where the label says tissue, the image has it; noise may reach zero in single voxels.
        if clean and (label == 2).any():
            assert float((image[:, label == 2] > 0).float().mean()) > 0.99


def test_samples_differ_and_a_seed_repeats_them() -> None:
    def draw(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        images, labels = square(2, generator)
        images, labels = images[:1].expand(2, -1, -1, -1), labels[:1].expand(2, -1, -1)
        return augment(images, labels, crop=64, generator=torch.Generator().manual_seed(seed))[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(draw(1)[0], draw(1)[1])


@pytest.mark.parametrize("crop", [32, 96])
def test_the_callers_random_state_is_left_alone(crop: int, generator: torch.Generator) -> None:
    before = torch.random.get_rng_state()
    augment(*square(2, generator), crop=crop, generator=generator)
    assert torch.equal(before, torch.random.get_rng_state())
