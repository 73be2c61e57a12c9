"""Reading images and writing labels: what is kept, and one line for every file that will not do."""

import gzip
import stat
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nansparse.errors import InputError
from nansparse.imaging import Volume, load_volume, save_labels

AFFINE = np.array([[-1.1, 0.1, 0.0, 90.0], [0.0, 0.2, 1.2, -120.0], [0.1, -1.3, 0.1, 70.0], [0, 0, 0, 1]])


def image(shape: tuple[int, ...] = (4, 5, 6), dtype: type = np.int16) -> nibabel.Nifti1Image:
    data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    return nibabel.Nifti1Image(data, AFFINE)


def written(folder: Path, img: nibabel.spatialimages.SpatialImage, name: str = "t1.nii.gz") -> Path:
    path = folder / name
    nibabel.save(img, path)
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgz"])
def test_voxels_affine_and_type_are_read(ending: str, tmp_path: Path) -> None:
    source = image()
    kind = nibabel.MGHImage if ending == ".mgz" else nibabel.Nifti1Image
    volume = load_volume(written(tmp_path, kind(source.get_fdata().astype(np.int16), AFFINE), f"t1{ending}"))
    assert volume.data.dtype == np.int16
    assert np.array_equal(volume.data, source.get_fdata())
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
    np.testing.assert_allclose(volume.voxel_size, np.linalg.norm(AFFINE[:3, :3], axis=0), atol=1e-4)


def test_scaled_voxels_become_float32(tmp_path: Path) -> None:
    source = image(dtype=np.int16)
    source.header.set_slope_inter(0.5, 10)
    path = tmp_path / "t1.nii"
    nibabel.save(source, path)
    volume = load_volume(path)
    assert volume.data.dtype == np.float32
    np.testing.assert_allclose(volume.data, np.asanyarray(nibabel.load(path).dataobj))


def test_a_single_time_point_is_no_fourth_dimension(tmp_path: Path) -> None:
    assert load_volume(written(tmp_path, image((4, 5, 6, 1)))).shape == (4, 5, 6)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2)])
def test_other_ranks_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t1.nii.gz is not a 3D image: its shape is \(4, 5"):
        load_volume(written(tmp_path, image(shape)))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no image at .*nowhere.nii"):
        load_volume(tmp_path / "nowhere.nii")
    with pytest.raises(InputError, match="it is a folder"):
        load_volume(tmp_path)


@pytest.mark.parametrize("name", ["t1.nii", "t1.nii.gz", "t1.mgz", "t1.txt", "t1"])
def test_what_is_not_an_image_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("subject,age\n1,30\n")
    with pytest.raises(InputError, match=r"is not a readable image") as caught:
        load_volume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["t1.nii", "t1.nii.gz"])
def test_a_cut_off_image_is_refused(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 30000, (20, 20, 20)).astype(np.int16)
    path = written(tmp_path, nibabel.Nifti1Image(noise, AFFINE), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="damaged or cut short"):
        load_volume(path)


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, image())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="t1.nii.gz"):
        load_volume(path)


def test_complex_and_colour_voxels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds complex64 voxels; expected real numbers"):
        load_volume(written(tmp_path, image(dtype=np.complex64)))
    colour = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match="expected real numbers"):
        load_volume(written(tmp_path, nibabel.Nifti1Image(colour, AFFINE), "rgb.nii"))


def test_non_finite_voxels_are_counted_and_located(tmp_path: Path) -> None:
    source = image(dtype=np.float32)
    data = source.get_fdata(dtype=np.float32)
    data[2, 1, 0] = data[3, 0, 0] = np.nan
    data[3, 3, 3] = -np.inf
    path = written(tmp_path, nibabel.Nifti1Image(data, AFFINE))
    with pytest.raises(InputError, match=r"holds 2 NaN and 1 infinite voxels \(the first at \(2, 1, 0\)\)"):
        load_volume(path)


def test_an_image_without_an_affine_is_refused(tmp_path: Path) -> None:
    nifti = nibabel.Nifti1Image(np.ones((3, 3, 3), np.float32), None)
    with pytest.raises(InputError, match=r"has no affine \(sform_code and qform_code are 0\)"):
        load_volume(written(tmp_path, nifti))


def test_a_degenerate_affine_is_refused(tmp_path: Path) -> None:
    flat = AFFINE.copy()
    flat[:, 2] = 2 * flat[:, 1]
    broken = AFFINE.copy()
    broken[0, 3] = np.nan
    for affine, message in ((flat, "degenerate affine"), (broken, "broken affine")):
        nifti = nibabel.Nifti1Image(np.ones((3, 3, 3), np.float32), np.eye(4))
        nifti.header.set_sform(affine, 1)
        nifti = nibabel.Nifti1Image(nifti.dataobj, affine, nifti.header)
        nifti.set_sform(affine, 1)
        nifti.set_qform(None, 0)
        with pytest.raises(InputError, match=message):
            load_volume(written(tmp_path, nifti))


def test_an_unsupported_format_is_named(tmp_path: Path) -> None:
    analyze = nibabel.AnalyzeImage(np.ones((3, 3, 3), np.float32), np.eye(4))
    nibabel.save(analyze, tmp_path / "old.img")
    with pytest.raises(InputError, match="is a .*; expected NIfTI or MGH|has no affine"):
        load_volume(tmp_path / "old.img")


def labelled(volume: Volume) -> np.ndarray:
    return np.arange(volume.data.size).reshape(volume.shape) % 4


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgz"])
def test_labels_keep_affine_and_header(ending: str, tmp_path: Path) -> None:
    source = image(dtype=np.float32)
    source.header["descrip"] = b"scanner 3"
    source.header["cal_max"] = 900
    source.header.set_xyzt_units("mm", "sec")
    source.set_sform(AFFINE, 4)
    like = load_volume(written(tmp_path, source))
    labels = labelled(like)
    save_labels(labels, like, tmp_path / f"labels{ending}")
    result = nibabel.load(tmp_path / f"labels{ending}")
    assert np.array_equal(np.asanyarray(result.dataobj), labels)
    assert result.get_data_dtype() == np.uint8
    np.testing.assert_allclose(result.affine, AFFINE, atol=1e-4)
    if ending != ".mgz":
        assert bytes(result.header["descrip"]).startswith(b"scanner 3")
        assert int(result.header["sform_code"]) == 4
        assert result.header.get_xyzt_units() == ("mm", "sec")
        assert float(result.header["cal_max"]) == 0


@pytest.mark.parametrize(("highest", "dtype"), [(255, np.uint8), (2035, np.int16), (70000, np.int32)])
def test_the_smallest_type_that_holds_the_labels_is_written(
    highest: int, dtype: type, tmp_path: Path
) -> None:
    like = load_volume(written(tmp_path, image()))
    labels = labelled(like)
    labels[0, 0, 0] = highest
    save_labels(labels, like, tmp_path / "labels.nii")
    result = nibabel.load(tmp_path / "labels.nii")
    assert result.get_data_dtype() == dtype
    assert int(np.asanyarray(result.dataobj).max()) == highest


def test_a_failing_writer_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    like = load_volume(written(tmp_path, image()))
    target = tmp_path / "labels.nii.gz"
    target.write_bytes(b"the result of yesterday")

    def fail_half_way(_: object, path: Path) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(nibabel, "save", fail_half_way)
    with pytest.raises(OSError, match="disk full"):
        save_labels(labelled(like), like, target)
    assert target.read_bytes() == b"the result of yesterday"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.nii.gz", "t1.nii.gz"]


def test_the_written_file_has_ordinary_permissions(tmp_path: Path) -> None:
    like = load_volume(written(tmp_path, image()))
    save_labels(labelled(like), like, tmp_path / "labels.nii.gz")
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "labels.nii.gz", ordinary)]
    assert modes[0] == modes[1]
    assert gzip.decompress((tmp_path / "labels.nii.gz").read_bytes())


def test_labels_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    like = load_volume(written(tmp_path, image()))
    labels = labelled(like)
    for bad, name, message in (
        (labels[:2], "a.nii", r"labels have the shape \(2, 5, 6\), the image \(4, 5, 6\)"),
        (labels * 0.5, "a.nii", "labels must be whole numbers, got float64"),
        (labels - 1, "a.nii", "labels go from -1 to 2"),
        (labels, "a.png", r"expected a name ending in .nii, .nii.gz, .mgh, .mgz"),
        (labels, "nowhere/a.nii", "the folder .*nowhere does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            save_labels(bad, like, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["t1.nii.gz"]
