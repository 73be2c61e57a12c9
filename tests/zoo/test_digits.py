"""The shipped digit classifier: held-out accuracy, what its score says, and its training."""

from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch

import nansparse
from nansparse import Policy
from nansparse.cli.main import main
from nansparse.evaluation.results import load_results
from nansparse.zoo import DigitsCNN, digits_training, load_digits_model
from nansparse.zoo.digits_data import HELD_OUT, load_digits
from nansparse.zoo.digits_training import moved, score_digits_model, train_digits_model
from tests.oracle import run_by_definition

# It takes seconds, and always says the same.
scored = cache(score_digits_model)


def test_the_shipped_weights_read_digits_they_never_saw() -> None:
    digits, model = load_digits(held_out=True), load_digits_model()
    with torch.inference_mode():
        found = model(digits.images).argmax(1)
    assert len(found) == HELD_OUT
    assert float((found == digits.labels).float().mean()) > 0.97


def test_images_are_framed_in_black_and_kept_apart() -> None:
    held, rest = load_digits(held_out=True), load_digits(held_out=False)
    assert len(held.labels) + len(rest.labels) == 1797
    assert held.images.shape[1:] == (1, 28, 28)
    for digits in (held, rest):
        assert not digits.images[..., :4, :].any()
        assert not digits.images[..., -4:].any()
        assert 0.9 < float(digits.images.max()) <= 1


@pytest.mark.parametrize("threshold", [0.5, 1.0])
@pytest.mark.parametrize("pool_first", [False, True])
def test_aggressive_mode_follows_the_definitions(threshold: float, pool_first: bool) -> None:
    model = load_digits_model(pool_first=pool_first).double()
    images = load_digits(held_out=True).images[:8].double()
    expected = run_by_definition(model, Policy(mode="aggressive", threshold=threshold), images)
    options = {"mode": "aggressive", "threshold": threshold, "output_nan": "keep"}
    with torch.inference_mode(), nansparse.enable(model, **options):
        found = model(images)
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_the_score_counts_what_aggressive_mode_costs() -> None:
    scores = scored()
    assert scores["images"] == HELD_OUT
    low, high = scores["accuracy_interval"]
    assert low < scores["accuracy"] < high
    cells = [(run["pool_first"], run["max_ties"], run["threshold"]) for run in scores["runs"]]
    assert cells == list(product((False, True), (1, 2), (1.0, 0.75, 0.5)))
    for run in scores["runs"]:
        assert run["loss"] == pytest.approx(scores["accuracy"] - run["accuracy"], abs=1e-6)
        low, high = run["loss_interval"]
        assert low <= run["loss"] <= high
        assert low < high
        assert list(run["skipped"]) == ["conv1", "conv2", "conv3", "conv4"]
        assert run["skipped"]["conv1"] == 0
    by_cell = dict(zip(cells, scores["runs"], strict=True))
    assert by_cell[False, 1, 1.0]["skipped"]["conv2"] < by_cell[False, 1, 0.5]["skipped"]["conv2"]
    # Channels that are switched off tie within the digit, unless pooling comes first.
    assert by_cell[False, 1, 0.5]["loss"] > 0.5
    assert by_cell[True, 1, 0.5]["loss"] < 0.05


def test_pooling_and_rectifier_commute_in_the_dense_run() -> None:
    images = load_digits(held_out=True).images[:64]
    with torch.inference_mode():
        published, swapped = (load_digits_model(pool_first=first)(images) for first in (False, True))
    assert torch.equal(published, swapped)


def test_training_is_repeatable_learns_and_leaves_the_random_state_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    for name in ("a", "b"):
        train_digits_model(tmp_path / f"{name}.safetensors", steps=40, threads=1, progress=False)
    assert torch.equal(before, torch.random.get_rng_state())
    first, second = (load_digits_model(tmp_path / f"{name}.safetensors").state_dict() for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)
    model = DigitsCNN().eval()
    model.load_state_dict(first)
    digits = load_digits(held_out=True)
    with torch.inference_mode():
        assert float((model(digits.images).argmax(1) == digits.labels).float().mean()) > 0.7


def test_augmentation_moves_digits_and_keeps_black_black(generator: torch.Generator) -> None:
    images = load_digits(held_out=False).images[:32]
    changed = moved(images, generator)
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    assert not moved(torch.zeros_like(images), generator).any()


def test_the_command_prints_accuracy_and_intervals(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits_training, "score_digits_model", scored)
    output = tmp_path / "digits.json"
    assert main(["zoo", "score", "digits", "--output", str(output)]) == 0
    results = load_results(output)
    assert results.kind == "digits"
    assert len(results.rows) == 1 + 12
    assert results.rows[0].values["accuracy"] > 0.97
    assert main(["zoo", "score", "digits", "--output", "digits.txt"]) == 2
    assert "must name a .json file, got digits.txt" in capsys.readouterr().err
    assert main(["zoo", "score", "digits"]) == 0
    printed = capsys.readouterr().out
    assert "797 digits kept out of training" in printed
    assert "95 % confidence interval" in printed
    assert printed.count("|") > 30
    assert main(["zoo", "score", "digits", "--weights", "nowhere.safetensors"]) == 2
    assert capsys.readouterr().err == "nansparse: no checkpoint at nowhere.safetensors\n"
    assert main(["zoo", "train", "digits", "--output", "nowhere/a.safetensors"]) == 2
    assert "the folder nowhere does not exist" in capsys.readouterr().err
