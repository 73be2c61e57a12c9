"""Files appear whole or not at all, and what went wrong names the file that was asked for."""

import errno
import os
from pathlib import Path

import pytest

from nansparse.errors import InputError
from nansparse.imaging.atomic import whole_file


def test_a_file_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as unfinished:
        unfinished.write_text("new")
        assert path.read_text() == "old"
        assert unfinished.name == path.name
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_whatever_happens_nothing_half_written_stays(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"

    def half_written() -> None:
        with whole_file(path) as unfinished:
            unfinished.write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        half_written()
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("named", [False, True])
def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path: Path, named: bool) -> None:
    path = tmp_path / "a.txt"

    def fill() -> None:
        with whole_file(path) as unfinished:
            name = (str(unfinished),) if named else ()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *name)

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert caught.value.filename == str(path)


def test_the_fault_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    def read_elsewhere() -> None:
        with whole_file(tmp_path / "a.txt"):
            (tmp_path / "missing").read_text()

    with pytest.raises(FileNotFoundError) as caught:
        read_elsewhere()
    assert caught.value.filename == str(tmp_path / "missing")


def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"), whole_file(tmp_path / "no" / "a.txt"):
        pass
    with pytest.raises(InputError, match="it is a folder"), whole_file(tmp_path):
        pass
