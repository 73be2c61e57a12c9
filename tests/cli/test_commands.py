"""The commands as a user meets them: exit codes, one line for bad input, nothing half-written."""

import nibabel
import numpy as np
import pytest

from nansparse.cli.main import BAD_INPUT, main
from nansparse.evaluation.results import load_results


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def volume(path, data, affine=None):
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return str(path)


BAD = {
    "missing file": (["--image", "nowhere.nii.gz"], "nowhere"),
    "threshold 0": (["--threshold", "0"], "threshold"),
    "negative epsilon": (["--epsilon", "-1"], "epsilon"),
    "unknown engine": (["--engine", "warp", "--slices", "1"], "engine"),
    "missing weights": (["--weights", "nowhere.safetensors"], "nowhere"),
}


@pytest.mark.parametrize(("arguments", "word"), BAD.values(), ids=BAD.keys())
def test_bad_options_give_one_line_and_exit_code_2(folder, capsys, arguments, word):
    assert main(["demo", *arguments]) == BAD_INPUT
    printed = capsys.readouterr().err.strip()
    assert printed.count("\n") == 0
    assert printed.startswith("nansparse: ")
    assert word in printed
    assert not (folder / "nansparse-demo").exists()


@pytest.mark.parametrize("words", [["demo", "--threads", "0"], ["demo", "--threshold", "half"], ["nothing"]])
def test_words_that_argparse_refuses_exit_with_2(folder, words):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == BAD_INPUT


def test_images_that_will_not_do_are_refused(folder, capsys):
    flat = volume(folder / "flat.nii.gz", np.ones((4, 4), dtype=np.float32))
    holed = np.ones((4, 4, 4), dtype=np.float32)
    holed[0, 0, 0] = np.nan
    text = folder / "text.nii.gz"
    text.write_text("no image")
    empty = volume(folder / "empty.nii.gz", np.zeros((4, 4, 4), dtype=np.float32))
    for image in (flat, volume(folder / "nan.nii.gz", holed), str(text), empty):
        assert main(["demo", "--image", image]) == BAD_INPUT, image
        assert capsys.readouterr().err.strip().count("\n") == 0
    assert not (folder / "nansparse-demo").exists()


def test_a_checkpoint_that_does_not_fit_is_refused(folder, capsys):
    from safetensors.torch import save_file
    from torch import zeros

    save_file({"encode1.wrong": zeros(2)}, folder / "wrong.safetensors")
    assert main(["zoo", "score", "--weights", "wrong.safetensors"]) == BAD_INPUT
    printed = capsys.readouterr().err.strip()
    assert "wrong" in printed
    assert printed.count("\n") == 0


def test_a_width_is_for_the_tissue_network(folder, capsys):
    assert main(["zoo", "train", "digits", "--filters", "8"]) == BAD_INPUT
    assert "--filters is for the tissue network, got digits" in capsys.readouterr().err
    assert not list(folder.glob("*.safetensors"))


@pytest.mark.slow
def test_a_short_demo_writes_labels_picture_and_numbers(folder, capsys):
    assert main(["demo", "--slices", "1", "--threads", "1", "--output", "out"]) == 0
    table = capsys.readouterr().out
    assert "conservative" in table
    names = ("dense", "conservative", "aggressive")
    labels = [nibabel.load(folder / "out" / f"mni152_{name}.nii.gz") for name in names]
    from nansparse.imaging import load_template

    template = load_template().t1
    for image in labels:
        assert image.shape == template.shape
        assert np.allclose(image.affine, template.affine)
        assert set(np.unique(np.asarray(image.dataobj))) <= {0, 1, 2, 3}
    assert (folder / "out" / "demo.png").stat().st_size > 10_000
    results = load_results(folder / "out" / "demo.json")
    rows = {row.way: row for row in results.rows}
    assert rows["conservative"].values["macs_skipped"] > 0.2
    assert rows["conservative"].labels["grey"]["dice"] > 0.999
    assert rows["aggressive"].labels["white"]["dice"] > 0.98
    assert rows["aggressive"].policy["mode"] == "aggressive"
    assert rows["dense, NCHW"].policy is None
    assert results.settings["best_dense"] in rows
    assert main(["report", str(folder / "out" / "demo.json")]) == 0
    shown = capsys.readouterr().out
    assert shown.strip() in table
    assert '<img alt="demo"' in (folder / "out" / "demo.html").read_text()
