"""Fail when a Python file outgrows one sitting: a concept is a file of at most 250 lines.

Usage: python tools/check_file_length.py FOLDER [FOLDER ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

LIMIT = 250


def too_long(folders: list[Path], limit: int = LIMIT) -> list[tuple[int, Path]]:
    """Find the Python files below `folders` that have more than `limit` lines.

    Args:
        folders: where to look, subfolders included.
        limit: the most lines a file may have.

    Returns:
        (lines, file) of each such file, the longest first.
    """
    counted = [
        (len(path.read_text(encoding="utf-8").splitlines()), path)
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
    ]
    return sorted(((lines, path) for lines, path in counted if lines > limit), reverse=True)


def main(arguments: list[str]) -> int:
    """Check the folders named on the command line.

    Args:
        arguments: the folders.

    Returns:
        The exit code: 0, or 1 when a file is too long, or 2 when a folder is missing or none was named.
    """
    folders = [Path(argument) for argument in arguments]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing or not folders:
        print(f"expected existing folders, got {arguments}; not there: {missing}", file=sys.stderr)
        return 2
    offenders = too_long(folders)
    for lines, path in offenders:
        print(f"{path}: {lines} lines, {lines - LIMIT} over the limit of {LIMIT}: split it by concept")
    if not offenders:
        print(f"file length: every file in {', '.join(arguments)} has at most {LIMIT} lines")
    return 1 if offenders else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
