"""Results files: what is written is what is read, whole or not at all, and everything else is refused."""

import csv
import json
import math

import pytest

from nansparse.errors import InputError
from nansparse.evaluation.environment import describe_environment
from nansparse.evaluation.results import Results, Row, load_results
from nansparse.evaluation.timing import Timing


@pytest.fixture
def results():
    rows = [
        Row({"volume": "a"}, "dense", timing=Timing((2.0, 1.0, 3.0)).to_dict(), values={"psnr_db": math.inf}),
        Row({"volume": "a"}, "sparse", labels={"grey": {"dice": 0.5}}),
        Row({"volume": "b"}, "dense", status="failed", fault="cut short"),
    ]
    return Results("compare", "nansparse compare", describe_environment(), {"margin": 0.01}, rows)


def test_what_is_read_is_what_was_written(results, tmp_path):
    results.save(tmp_path / "r.json")
    read = load_results(tmp_path / "r.json")
    assert read.rows[0].values == {"psnr_db": None}  # JSON has no infinity
    results.rows[0].values["psnr_db"] = None
    assert read == results
    assert read.rows[0].seconds == 2.0


def test_tables_stand_beside_the_file(results, tmp_path):
    written = results.save(tmp_path / "r.json")
    assert [path.name for path in written] == ["r.json", "r.csv", "r_labels.csv"]
    with (tmp_path / "r.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["way"] for line in lines] == ["dense", "sparse", "dense"]
    assert (lines[0]["median_s"], lines[2]["fault"]) == ("2.0", "cut short")
    with (tmp_path / "r_labels.csv").open() as file:
        assert next(csv.DictReader(file)) == {"volume": "a", "way": "sparse", "label": "grey", "dice": "0.5"}


FAULTS = {
    "other version": (lambda d: d.update(version=2), "version 2"),
    "other schema": (lambda d: d.update(schema="else"), "no results file"),
    "unknown kind": (lambda d: d.update(kind="else"), r"\$.kind"),
    "missing part": (lambda d: d.pop("settings"), "settings"),
    "unknown part": (lambda d: d.update(extra=1), "extra"),
    "no sample": (lambda d: d["rows"][0]["timing"].update(seconds=[]), "seconds"),
    "failed without a fault": (lambda d: d["rows"][2].update(fault=None), "fault"),
    "threads": (lambda d: d["environment"].update(threads=0), "threads"),
}


@pytest.mark.parametrize(("spoil", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_documents_that_do_not_fit_are_refused_in_one_line(results, tmp_path, spoil, words):
    document = results.to_dict()
    spoil(document)
    (tmp_path / "r.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=words) as caught:
        load_results(tmp_path / "r.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00"])
def test_files_that_are_no_results_are_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=r"r\.json"):
        load_results(tmp_path / "r.json")
    with pytest.raises(InputError, match="cannot read"):
        load_results(tmp_path / "missing.json")


def test_nothing_is_written_that_could_not_be_read_again(results, tmp_path):
    results.save(tmp_path / "r.json")
    before = (tmp_path / "r.json").read_text()
    results.rows[0].status = "half done"
    with pytest.raises(InputError):
        results.save(tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == before
    assert len(list(tmp_path.iterdir())) == 3
