"""Writing files so that nobody ever sees a half-written one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nansparse.errors import InputError


def check_place(path: str | Path) -> None:
    """Check, before something takes minutes, that a file can be written.

    Args:
        path: Where the file shall be; its folder must exist.

    Raises:
        InputError: If the folder does not exist or cannot be written to, or `path` is a folder.
    """
    _scratch_beside(Path(path)).cleanup()


def _scratch_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder")
    try:
        # A folder of its own, not a file: the writer then creates the file with the permissions it always
        # has.
        return tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give out a temporary path to write to; put it in the place of `path` when the block ends well.

    After an exception in the block, `path` is what it was before and nothing else is left behind.

    Args:
        path: Where the file shall be; its folder must exist.

    Yields:
        A path of the same name, so also of the same ending, in a temporary folder on the same disk.

    Raises:
        InputError: If the folder does not exist or cannot be written to, or `path` is a folder.
        OSError: If the block or the disk fails; it names `path`.
    """
    path = Path(path)
    with _scratch_beside(path) as folder:
        unfinished = Path(folder) / path.name
        try:
            yield unfinished
            os.replace(unfinished, path)
        except OSError as error:
            # A full disk names no file, or the temporary one, which tells nobody anything.
            unnamed = error.filename is None or str(error.filename).startswith(folder)
            # An error without a number would lose its text.
            if error.errno is not None and unnamed:
                error.filename = str(path)
            raise
