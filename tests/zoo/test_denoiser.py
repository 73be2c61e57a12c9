"""The denoiser: its noise, its training, its shipped weights and what its score says."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nansparse.cli.main import main
from nansparse.evaluation.results import load_results
from nansparse.imaging import Volume
from nansparse.zoo import FONDUE, denoiser_score, denoiser_training, load_denoiser
from nansparse.zoo.checkpoints import read_state
from nansparse.zoo.denoiser_data import LARGEST_LEVEL, add_rician_noise, denoising_batches
from nansparse.zoo.denoiser_score import noisy_volume, score_denoiser, slab_of
from nansparse.zoo.denoiser_training import train_denoiser
from nansparse.zoo.tissue_data import TissueData, held_out_slices, load_tissue_data, training_slices


def fake_data() -> TissueData:
    labels = np.zeros((48, 48, 256), np.uint8)
    labels[10:40, 10:40] = 1
    labels[20:30, 20:30] = 3
    image = np.array([0, 60, 140, 220], np.uint8)[labels]
    return TissueData(Volume(image, np.eye(4)), Volume(labels, np.eye(4)))


@pytest.mark.parametrize("level", [0.02, 0.2])
def test_noise_is_rician(generator: torch.Generator, level: float) -> None:
    # In the background Rayleigh: mean level * sqrt(pi / 2). Second moment everywhere: s^2 + 2 level^2.
    for signal in (0.0, 0.1, 1.0):
        noisy = add_rician_noise(torch.full((400_000,), signal).double(), level, generator)
        assert float(noisy.min()) >= 0
        assert float((noisy**2).mean()) == pytest.approx(signal**2 + 2 * level**2, rel=0.02)
    dark = add_rician_noise(torch.zeros(400_000).double(), level, generator)
    assert float(dark.mean()) == pytest.approx(level * (np.pi / 2) ** 0.5, rel=0.01)


def test_batches_show_the_middle_slice_without_noise(generator: torch.Generator) -> None:
    data, stripped = fake_data(), []
    for noisy, clean in denoising_batches(data, 12, 2, 32, generator):
        assert noisy.shape == (2, 7, 32, 32)
        assert clean.shape == (2, 1, 32, 32)
        empty = (clean == 0).expand_as(noisy)
        # Noise of at most LARGEST_LEVEL a component: what is left of the signal is the middle slice.
        assert float((noisy[:, 3:4] - clean).abs().max()) < 6 * LARGEST_LEVEL
        stripped += [not bool(x[e].any()) for x, e in zip(noisy, empty, strict=True)]
    assert 0 < sum(stripped) < len(stripped)


def test_no_training_input_shows_a_held_out_slice() -> None:
    seen = {index + offset for index in training_slices() for offset in range(-3, 4)}
    assert not seen & set(held_out_slices())
    chosen = {index + offset for index in denoiser_score.CHOOSING_SLICES for offset in range(-3, 4)}
    assert not chosen & set(held_out_slices())


def test_training_is_repeatable_and_keeps_the_published_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoiser_training, "load_tissue_data", fake_data)
    before = torch.random.get_rng_state()
    for name in ("a", "b"):
        path = tmp_path / f"{name}.safetensors"
        train_denoiser(path, steps=2, crop=32, batch_size=1, threads=1, progress=False)
    assert torch.equal(before, torch.random.get_rng_state())
    first, second = (read_state(tmp_path / f"{name}.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert set(first) == set(FONDUE(num_filters=4).state_dict())
    assert load_denoiser(tmp_path / "a.safetensors").conv0_0.conv1.weight.shape == (16, 7, 3, 3)


def test_the_shipped_denoiser_takes_noise_away() -> None:
    data, model = load_tissue_data(), load_denoiser()
    stack = torch.from_numpy(np.moveaxis(data.image.data, 2, 0).astype(np.float32)) / 255
    index = held_out_slices()[12]
    noisy = noisy_volume(stack[index - 3 : index + 4], 0.05)
    with torch.inference_mode():
        found = model(noisy[None])[0, 0]
    error_before = float(((noisy[3] - stack[index]) ** 2).mean())
    error_after = float(((found - stack[index]) ** 2).mean())
    assert error_after < 0.05 * error_before


@pytest.fixture
def small_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoiser_score, "load_tissue_data", fake_data)
    monkeypatch.setattr(denoiser_score, "held_out_slices", lambda: [100, 101])
    monkeypatch.setattr(denoiser_score, "LEVELS", (0.05,))
    monkeypatch.setattr(denoiser_score, "SETTINGS", (("conservative", 0.5), ("aggressive", 1.0)))
    monkeypatch.setattr(denoiser_score, "CHOOSING_SLICES", range(112, 114))


@pytest.mark.usefixtures("small_scores")
def test_the_score_compares_with_no_filter_and_a_gaussian() -> None:
    scores = score_denoiser(progress=False)
    (level,) = scores["levels"]
    assert level["width_voxels"] in denoiser_score.WIDTHS
    # Rician noise over a mostly dark slice: second moment of the error known up to its mean.
    assert level["noisy"]["psnr_db"] == pytest.approx(-20 * np.log10(0.05 * 255 / 220) - 2.0, abs=1.0)
    assert level["noisy"]["psnr_db"] < level["gaussian"]["psnr_db"]
    assert level["noisy"]["ssim"] < level["gaussian"]["ssim"]
    marked = [run for run in scores["runs"] if run["background"] == "marked"]
    assert [(run["mode"], run["threshold"]) for run in marked] == list(denoiser_score.SETTINGS)
    assert marked[0]["macs_skipped"] > 0
    noise = [run for run in scores["runs"] if run["background"] == "noise"]
    assert noise[0]["macs_skipped"] < marked[0]["macs_skipped"]
    for run in noise:
        assert run["psnr_loss_db"] == pytest.approx(
            level["denoiser"]["brain_psnr_db"] - run["brain_psnr_db"], abs=1.0
        )


@pytest.mark.usefixtures("small_scores")
def test_the_command_prints_both_tables_and_writes_what_can_be_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "denoiser.json"
    assert main(["zoo", "score", "denoiser", "--output", str(output)]) == 0
    results = load_results(output)
    assert (results.kind, results.complete) == ("denoiser", True)
    assert [row.way for row in results.rows[:4]] == [
        "no filter", "Gaussian", "denoiser", "denoiser, conservative 0.5"
    ]  # fmt: skip
    assert len(results.rows) == 3 + 6
    printed = capsys.readouterr().out
    assert "2 slices kept out of training" in printed
    assert "Gaussian, " in printed
    assert "zero, NaN beyond 4 cells" in printed
    assert main(["zoo", "score", "denoiser", "--weights", "nowhere.safetensors"]) == 2
    assert capsys.readouterr().err == "nansparse: no checkpoint at nowhere.safetensors\n"


def test_a_slab_has_its_slice_in_the_middle() -> None:
    stack = torch.arange(20.0)[:, None, None].expand(20, 2, 2)
    assert slab_of(stack, 9)[0, :, 0, 0].tolist() == [6, 7, 8, 9, 10, 11, 12]
