"""`nansparse compare` and `bench models` end to end on small networks and small volumes."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nansparse.cli.main import BAD_INPUT, main
from nansparse.comparison.cases import find_cases
from nansparse.errors import InputError
from nansparse.evaluation.results import load_results
from tests.comparison.nets import Segmenter

NET = [
    "--model",
    "tests.comparison.nets:Segmenter",
    "--window",
    "whole",
    "--intensity",
    "none",
    "--threads",
    "1",
]
FAST = ["--baselines", "channels_last,bbox", "--multiple", "4"]


def brain(path, seed, bright=1.0):
    """Write a small ball of noise on zero background."""
    random = np.random.default_rng(seed)
    x, y, z = np.mgrid[-1:1:20j, -1:1:18j, -1:1:16j]
    inside = x**2 + y**2 + z**2 < 0.5
    data = (inside * random.uniform(0.2, bright, inside.shape)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0])), path)
    return path


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        brain(tmp_path / "in" / f"s{i}.nii.gz", i)
    return tmp_path


def compare(folder, *words, inputs="in", output="c.json"):
    return main(["compare", str(folder / inputs), *NET, *FAST, "--output", str(folder / output), *words])


def test_every_way_is_measured_on_every_volume_and_equivalence_is_judged(folder, capsys):
    assert compare(folder) == 0
    results = load_results(folder / "c.json")
    ways = list(dict.fromkeys(row.way for row in results.rows))
    assert ways[:3] == ["dense, NCHW", "dense, channels_last", "dense, bounding box"]
    assert {"conservative 0.5", "aggressive 1", "conservative 0.5, bfloat16"} <= set(ways)
    assert len(results.rows) == 6 * len(ways)
    for row in results.rows:
        assert row.done, row.fault
        assert set(row.labels) == {"1", "2"}
        assert {"dice", "hd95_mm", "mean_distance_mm", "volume_difference_mm3"} <= set(row.labels["1"])
        if row.way == "dense, channels_last":
            assert row.values["disagreeing_voxels"] == 0
        if row.policy:
            assert row.layers
            assert 0 <= row.values["windows_skipped"] < 1
        if row.way == "aggressive 0.5":
            assert row.values["windows_skipped"] > 0.01
    verdicts = {(e["way"], e["label"]): e for e in results.analysis["equivalence"]}
    same = verdicts["dense, channels_last", "mean over labels"]
    assert (same["n"], same["verdict"], same["measure"]) == (6, "equivalent", "dice")
    printed = capsys.readouterr().out
    assert "Equivalence with the dense run" in printed
    names = {file.name for file in folder.iterdir()}
    assert {"c.html", "c.csv", "c_labels.csv", "c.png", "c_differences.png", "c_nan_1.png"} <= names


def test_what_a_way_gives_is_what_the_model_gives(folder):
    # The dense rows against a run of the model by hand, and a truth that is that run's labels.
    import torch

    image = nibabel.load(folder / "in" / "s0.nii.gz")
    x = torch.zeros(1, 1, 20, 20, 16)
    x[..., :18, :] = torch.from_numpy(image.get_fdata(dtype=np.float32))
    with torch.inference_mode():
        labels = Segmenter().eval()(x).argmax(1)[0, :, :18].numpy().astype(np.uint8)
    (folder / "truth").mkdir()
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), folder / "truth" / "s0.nii.gz")
    words = ["--truth", str(folder / "truth"), "--policy", "aggressive"]
    assert compare(folder, *words, inputs="in/s0.nii.gz") == 0
    rows = {row.way: row for row in load_results(folder / "c.json").rows}
    assert rows["dense, NCHW"].values["dice_truth"] == 1.0
    sparse = rows["aggressive 0.5"]
    assert sparse.values["disagreeing_voxels"] == sparse.values["disagreeing_voxels_truth"] > 0
    assert sparse.values["dice_truth"] == pytest.approx(sparse.values["dice"]) != 1.0


def test_faults_of_single_volumes_are_told_and_the_rest_is_finished(folder, capsys):
    brain(folder / "in" / "t_bright.nii.gz", 7, bright=9.0)
    (folder / "in" / "u_broken.nii.gz").write_bytes(b"no image")
    words = ["--model-args", '{"raises_above": 2.0}', "--policy", "conservative"]
    assert compare(folder, *words) == 1
    results = load_results(folder / "c.json")
    failed = {row.cell["volume"]: row.fault for row in results.rows if not row.done}
    assert set(failed) == {"t_bright.nii.gz", "u_broken.nii.gz"}
    assert "too bright for me" in failed["t_bright.nii.gz"]
    assert "second line" not in failed["t_bright.nii.gz"]
    assert sum(row.done for row in results.rows) == 6 * 4
    told = capsys.readouterr().err
    assert "t_bright" in told
    assert "u_broken" in told
    # Once mended, only these are run.
    before = [row for row in results.rows if row.done]
    brain(folder / "in" / "t_bright.nii.gz", 7)
    (folder / "in" / "u_broken.nii.gz").unlink()
    assert compare(folder, *words) == 0
    after = load_results(folder / "c.json").rows
    assert after[: len(before)] == before
    assert len(after) == 7 * 4


def test_slices_of_two_dimensional_networks_and_subsets(folder):
    words = ["--model-args", '{"axes": 2}', "--grid", "native", "--orientation", "LIA", "--slices", "3"]
    assert compare(folder, *words, "--policy", "conservative", inputs="in/s0.nii.gz") == 0
    rows = {row.way: row for row in load_results(folder / "c.json").rows}
    assert rows["dense, bounding box"].done
    assert "hd95_mm" not in rows["dense, NCHW"].values
    assert rows["dense, channels_last"].values["dice"] == 1.0 > rows["conservative 0.5"].values["dice"]


def test_regression_has_image_measures(folder):
    words = ["--task", "regression", "--model-args", '{"classes": 1}', "--policy", "aggressive"]
    assert compare(folder, *words, inputs="in/s0.nii.gz") == 0
    rows = {row.way: row for row in load_results(folder / "c.json").rows}
    assert rows["dense, channels_last"].values["ssim"] > 0.999
    assert rows["aggressive 0.5"].values["psnr_db"] < 100
    assert rows["aggressive 0.5"].values["max_difference"] > 0


def test_classification_has_accuracy_and_agreement(folder):
    (folder / "classes.csv").write_text("name,class\n" + "".join(f"s{i}.nii.gz,{i}\n" for i in range(6)))
    words = ["compare", str(folder / "in"), "--model", "tests.comparison.nets:Classifier", *NET[2:], "--task"]
    words += ["classification", "--truth", str(folder / "classes.csv"), "--policy", "aggressive"]
    assert main([*words, "--baselines", "", "--output", str(folder / "c.json")]) == 0
    results = load_results(folder / "c.json")
    for row in results.rows:
        assert row.values["accuracy"] in (0.0, 1.0)
        assert 0 < row.values["top5_agreement"] <= 1
    assert {e["measure"] for e in results.analysis["equivalence"]} == {"accuracy"}


def test_bids_trees_folders_and_files_are_found(tmp_path):
    bids = tmp_path / "bids"
    for name in ("sub-1/anat/sub-1_T1w", "sub-2/ses-a/anat/sub-2_ses-a_T1w", "sub-2/anat/sub-2_T2w"):
        brain(bids / f"{name}.nii.gz", 0)
    brain(bids / "derivatives" / "x" / "sub-1" / "anat" / "sub-1_T1w.nii.gz", 0)
    (bids / "dataset_description.json").write_text("{}")
    assert [case.name for case in find_cases([bids])] == [
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-2/ses-a/anat/sub-2_ses-a_T1w.nii.gz",
    ]
    assert [case.name for case in find_cases([bids], suffix="T2w")] == ["sub-2/anat/sub-2_T2w.nii.gz"]
    one = bids / "sub-1" / "anat" / "sub-1_T1w.nii.gz"
    assert [case.name for case in find_cases([one, one])] == ["sub-1_T1w.nii.gz"]
    assert [case.name for case in find_cases([])] == ["mni152"]
    with pytest.raises(InputError, match="two images"):
        find_cases([one, bids / "derivatives" / "x" / "sub-1" / "anat" / "sub-1_T1w.nii.gz"])


BAD = {
    "no image": (["nowhere.nii"], "nowhere"),
    "no truth": (["s.nii.gz", "--truth", "nowhere"], "nowhere"),
    "truth of the template": (["--truth", "s.nii.gz"], "own"),
    "baseline": (["s.nii.gz", "--baselines", "warp"], "warp"),
    "mode": (["s.nii.gz", "--policy", "both"], "both"),
    "option": (["s.nii.gz", "--policy", "aggressive:speed=1"], "speed"),
    "threshold": (["s.nii.gz", "--policy", "aggressive:threshold=2"], "threshold"),
    "part": (["s.nii.gz", "--policy", "aggressive+turbo"], "turbo"),
    "background": (["s.nii.gz", "--policy", "aggressive+background=x"], "background"),
    "engine": (["s.nii.gz", "--policy", "aggressive:engine=warp"], "warp"),
    "margin": (["s.nii.gz", "--margin", "0"], "margin"),
    "model": (["s.nii.gz", "--model", "no.such:net"], "no"),
    "device": (["s.nii.gz", "--device", "cuda:77"], "cuda:77"),
    "folder without images": (["empty"], "empty"),
    "the only image is none": (["broken.nii.gz"], "broken.nii.gz"),
}


@pytest.mark.parametrize(("words", "word"), BAD.values(), ids=BAD.keys())
def test_bad_input_gives_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, words, word):
    monkeypatch.chdir(tmp_path)
    brain(tmp_path / "s.nii.gz", 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    net = [] if "--model" in words else ["--model", "tests.comparison.nets:Segmenter"]
    assert main(["compare", *words, *net]) == BAD_INPUT
    printed = capsys.readouterr().err.strip()
    assert printed.count("\n") == 0
    assert word in printed
    assert {path.name for path in tmp_path.iterdir()} == {"s.nii.gz", "empty", "broken.nii.gz"}


def sweep(folder, *words):
    axes = ("mode=conservative,aggressive", "threshold=0.5,1", "background=none,1")
    small = [word for axis in axes for word in ("--set", axis)]
    image, output = str(folder / "in" / "s0.nii.gz"), str(folder / "m.json")
    few = ["--repeats", "2", "--multiple", "4", "--output", output]
    return main(["bench", "models", image, *NET, *small, *few, *words])


def test_a_sweep_finds_its_front_and_recommends_within_the_loss(folder, capsys):
    assert sweep(folder, "--loss", "100") == 0
    results = load_results(folder / "m.json")
    policies = [row for row in results.rows if row.policy]
    assert len(policies) == 8
    assert all(len(row.timing["seconds"]) == 2 for row in policies)
    assert results.analysis["pareto"]
    fastest = max(policies, key=lambda row: row.values["speed_up"])
    assert fastest.cell in results.analysis["pareto"]
    assert "recommended" in capsys.readouterr().out.lower()
    assert (folder / "m.png").exists()
    for loss in ("-1", "nan", "inf"):
        assert sweep(folder, "--loss", loss) == BAD_INPUT
    capsys.readouterr()
    (folder / "in" / "s0.nii.gz").write_bytes(b"no image")
    assert sweep(folder, "--overwrite") == BAD_INPUT
    told = capsys.readouterr().err
    assert "s0.nii.gz" in told
    assert told.count("\n") == 1
    assert load_results(folder / "m.json") == results


@pytest.mark.slow
def test_every_worker_flushes_denormals(folder):
    # In a process of its own: here the workers were started long ago.
    words = ["compare", str(folder / "in" / "s0.nii.gz"), *NET, *FAST, "--policy", "conservative"]
    words[words.index("--threads") + 1] = "2"
    command = [sys.executable, "-m", "nansparse.cli.main", *words, "--output", str(folder / "c.json")]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert load_results(folder / "c.json").environment["denormals_flushed"]


def test_interrupted_sweeps_go_on(folder):
    assert sweep(folder) == 0
    document = json.loads((folder / "m.json").read_text())
    kept = [row for row in document["rows"] if row["cell"]["mode"] == "aggressive"]
    (folder / "m.json").write_text(json.dumps({**document, "rows": kept}))
    assert sweep(folder) == 0
    after = load_results(folder / "m.json").rows
    assert [row.timing for row in after[: len(kept)]] == [row["timing"] for row in kept]
    assert len(after) == len(document["rows"])
