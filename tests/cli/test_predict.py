"""`nansparse predict` as a user meets it."""

import errno
import json
import os
import re
import sys

import nibabel
import numpy as np
import pytest
import torch

from nansparse.cli.main import BAD_INPUT, main
from tests.prediction.nets import AFFINE, CUT, ball, bright3d, write_image

NETS = "tests.prediction.nets"
MODEL = ["--model", f"{NETS}:bright3d", "--window", "8", "--intensity", "none"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "t1.nii.gz", ball())
    return tmp_path


def labels(path):
    return np.asarray(nibabel.load(path).dataobj)


def test_one_volume(folder, capsys):
    assert main(["predict", "t1.nii.gz", "-o", "seg.nii.gz", *MODEL, "--background", "--compare"]) == 0
    printed = capsys.readouterr().out
    assert "wrote seg.nii.gz in" in printed
    assert re.search(r"% of the multiply-adds skipped, \d+ MiB at the peak\n", printed)
    assert "Dice with dense by label: 1: 1.0000" in printed
    image = nibabel.load("seg.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj), ball() > CUT)
    np.testing.assert_allclose(image.affine, AFFINE)


def test_three_planes_with_a_network_each(folder):
    one, other = ({"channels": n} for n in (3, 5))
    command = ["predict", "t1.nii.gz", "-o", "out", "--model", f"{NETS}:bright2d", "--grid", "native"]
    command += ["--model-args", json.dumps(one), "--model-args", f"axial={json.dumps(other)}"]
    command += [
        "--planes",
        "coronal",
        "axial",
        "sagittal",
        "--intensity",
        "none",
        "--probabilities",
        "--quiet",
    ]
    assert main(command) == 0
    assert np.array_equal(labels("out/t1_labels.nii.gz"), ball() > CUT)
    shares = nibabel.load("out/t1_probabilities.nii.gz").get_fdata()
    assert shares.shape == (*ball().shape, 2)


def test_many_volumes_resume_and_the_exit_code_tells(folder, capsys):
    (folder / "in").mkdir()
    for name in ("a", "b"):
        write_image(folder / "in" / f"{name}.nii", ball())
    write_image(folder / "in" / "broken.nii", np.full((4, 4, 4), np.nan))
    command = ["predict", "in", "t1.nii.gz", "-o", "out", "--report", "report.json", *MODEL]
    assert main([*command, "--workers", "2"]) == BAD_INPUT
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 2
    assert "in/broken.nii: " in told[0]
    assert "NaN" in told[0]
    assert told[1] == "nansparse: 1 of 4 volumes failed; the others are done"
    assert sorted(p.name for p in (folder / "out").iterdir()) == [
        "a_labels.nii", "b_labels.nii", "t1_labels.nii.gz"
    ]  # fmt: skip
    report = json.loads((folder / "report.json").read_text())
    assert {v["image"]: v["status"] for v in report["volumes"]} == {
        "in/a.nii": "done", "in/b.nii": "done", "in/broken.nii": "failed", "t1.nii.gz": "done"
    }  # fmt: skip
    assert report["recipe"]["window"] == [8, 8, 8]
    write_image(folder / "in" / "broken.nii", ball())
    before = (folder / "out" / "a_labels.nii").stat().st_mtime_ns
    assert main(command) == 0
    assert "is there already" in capsys.readouterr().out
    assert (folder / "out" / "a_labels.nii").stat().st_mtime_ns == before
    assert np.array_equal(labels("out/broken_labels.nii"), ball() > CUT)
    assert main([*command, "--overwrite"]) == 0
    assert (folder / "out" / "a_labels.nii").stat().st_mtime_ns > before


def test_a_monai_bundle_by_its_folder(folder):
    pytest.importorskip("monai", reason="pip install 'nansparse[monai]'")
    from tests.prediction.test_bundles import CONFIG

    (folder / "bundle" / "configs").mkdir(parents=True)
    (folder / "bundle" / "configs" / "inference.json").write_text(json.dumps(CONFIG))
    torch.save(bright3d().state_dict(), "weights.pt")
    command = ["predict", "t1.nii.gz", "-o", "out", "--model", "bundle", "--weights", "weights.pt"]
    assert main([*command, "--report", "report.json"]) == 0
    assert np.array_equal(labels("out/t1_labels.nii.gz"), ball() > CUT)
    recipe = json.loads((folder / "report.json").read_text())["recipe"]
    assert (recipe["window"], recipe["grid"]["kind"]) == ([8, 16, 8], "bundle")


BAD = {
    "no model": (["--model", "no.such:net"], "cannot import 'no.such'"),
    "a module that ends the program": (["--model", "ends:net"], "cannot import 'ends': SystemExit: 3"),
    "a factory that ends the program": (["--model", f"{NETS}:ends"], "could not be made with {}: SystemExit"),
    "a module that is no Python": (["--model", "broken:net"], "cannot import 'broken': SyntaxError"),
    "damaged weights": ([*MODEL, "--weights", "damaged.safetensors"], "is not a readable safetensors file"),
    "no module": (["--model", f"{NETS}:no_model"], "expected a torch.nn.Module"),
    "unknown name": (["--model", "UNet9000"], "no model 'UNet9000'"),
    "arguments that are no JSON": ([*MODEL, "--model-args", "{"], "--model-args is no JSON"),
    "arguments that are no object": ([*MODEL, "--model-args", "[1]"], "must be a JSON object"),
    "missing weights": ([*MODEL, "--weights", "w.pt"], "no checkpoint at w.pt"),
    "wrong keys": ([*MODEL, "--weights", "wrong.pt"], "weigth"),
    "bad threshold": ([*MODEL, "--threshold", "2"], "threshold"),
    "bad engine": ([*MODEL, "--engine", "warp"], "'warp'"),
    "bad plane": (["--model", f"{NETS}:bright2d", "--planes", "oblique"], "plane is 'oblique'"),
    "planes of a 3D network": ([*MODEL[:2], "--planes", "axial"], "is a 3D network"),
    "weights twice": ([*MODEL, "--weights", "a.pt", "--weights", "b.pt"], "--weights is given twice"),
    "bad window": ([*MODEL[:2], "--window", "1", "2"], "--window must be one number or three"),
    "bad spacing": ([*MODEL, "--spacing", "0"], "spacing must be"),
    "bad orientation": ([*MODEL, "--orientation", "XYZ"], "unknown orientation 'XYZ'"),
    "bad overlap": ([*MODEL, "--overlap", "1"], "overlap"),
    "bad margin": ([*MODEL, "--background", "--margin", "-1"], "margin"),
    "missing mask": ([*MODEL, "--mask", "brain.nii"], "no mask at brain.nii"),
    "bad label values": ([*MODEL, "--label-values", "values.json"], "cannot read values.json"),
    "no cluster": ([*MODEL, "--dask", "nowhere"], "no Dask scheduler at nowhere"),
    "missing report folder": ([*MODEL, "--report", "no/r.json"], "its folder does not exist"),
    "no such GPU": ([*MODEL, "--device", "cuda:77"], "cuda:77"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD.keys())
def test_bad_options_give_one_line_and_write_nothing(folder, capsys, monkeypatch, arguments, words):
    torch.save({"weigth": torch.zeros(1), "bias": torch.zeros(2)}, "wrong.pt")
    (folder / "damaged.safetensors").write_bytes(b"damaged")
    (folder / "ends.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "broken.py").write_text("def net(:\n")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = sorted(folder.rglob("*"))
    assert main(["predict", "t1.nii.gz", "-o", "out", *arguments]) == BAD_INPUT
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("nansparse: ")
    assert "\n" not in printed
    assert words in printed
    assert sorted(folder.rglob("*")) == before


def unplaced(path):
    image = nibabel.Nifti1Image(ball(), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nibabel.save(image, path)


def cut_short(path):
    write_image(path, ball())
    path.write_bytes(path.read_bytes()[:300])


IMAGES = {
    "NaN": (lambda path: write_image(path, np.full((4, 4, 4), np.nan)), "NaN"),
    "no affine": (unplaced, "has no affine"),
    "flat": (lambda path: write_image(path, np.ones((4, 4))), "not a 3D image"),
    "four axes": (lambda path: write_image(path, np.ones((4, 4, 4, 3))), "not a 3D image"),
    "no size": (lambda path: write_image(path, np.ones((0, 4, 4))), "its shape is (0, 4, 4)"),
    "complex": (
        lambda path: nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.complex64), np.eye(4)), path),
        "holds complex64 voxels",
    ),
    "cut short": (cut_short, "is damaged or cut short"),
    "text": (lambda path: path.write_text("no image"), "is not a readable image"),
    "nothing": (lambda path: write_image(path, np.zeros((4, 4, 4))), "no voxel above zero"),
}


@pytest.mark.parametrize(("make", "words"), IMAGES.values(), ids=IMAGES.keys())
def test_images_that_will_not_do(folder, capsys, make, words):
    make(folder / "bad.nii.gz")
    before = sorted(folder.rglob("*"))
    assert main(["predict", "bad.nii.gz", "-o", "out", *MODEL[:4]]) == BAD_INPUT
    printed = capsys.readouterr().err.strip()
    assert "\n" not in printed
    assert words in printed
    assert sorted(folder.rglob("*")) == before


def test_a_full_disk_leaves_nothing(folder, capsys, monkeypatch):
    def full(image, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nibabel, "save", full)
    assert main(["predict", "t1.nii.gz", "-o", "out", *MODEL]) == BAD_INPUT
    assert capsys.readouterr().err == "nansparse: No space left on device: out/t1_labels.nii.gz\n"
    assert list((folder / "out").iterdir()) == []


def test_an_interrupt_leaves_nothing(folder, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(nibabel, "save", interrupted)
    assert main(["predict", "t1.nii.gz", "-o", "out", *MODEL]) == 130
    assert list((folder / "out").iterdir()) == []
