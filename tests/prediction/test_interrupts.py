"""Ctrl-C on a pool of workers, as a terminal sends it: to the command and all its processes at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.prediction.nets import CUT, ball, write_image

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and SIGINT are POSIX")
PATIENCE = 60.0
VOLUMES = 4


@contextmanager
def started(folder: Path, model: str) -> Iterator[subprocess.Popen[str]]:
    """Start the command with two workers in a process group of its own; whatever is left of it is killed."""
    command = [sys.executable, "-m", "nansparse.cli.main", "predict", "in", "-o", "out"]
    command += ["--model", f"tests.prediction.nets:{model}", "--window", "18", "21", "15"]
    command += ["--intensity", "none", "--workers", "2", "--threads", "1"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    # Tests in the background of a shell ignore Ctrl-C, and what they start would too.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    signal.signal(signal.SIGINT, ours)
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def group_is_gone(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return True
    return False


def processes(leader: int) -> int:
    """Count the processes of a group."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            count += int(fields[2]) == leader
    return count


@pytest.mark.parametrize("moment", ["while workers start", "in the middle"])
def test_ctrl_c_ends_all_processes_leaves_nothing_half_written_and_resumes(
    tmp_path: Path, moment: str
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(VOLUMES):
        write_image(tmp_path / "in" / f"{number}.nii.gz", ball())
    with started(tmp_path, "slow") as process:
        if moment == "in the middle":
            wait_for(lambda: any((tmp_path / "out").glob("*_labels.nii.gz")))
        else:
            wait_for(lambda: processes(process.pid) > 2)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
        assert told.strip() == "nansparse: interrupted, nothing half-written"
        assert process.returncode == 130
        wait_for(lambda: group_is_gone(process.pid))

    written = sorted(path.name for path in tmp_path.glob("out/*"))
    assert all(name.endswith("_labels.nii.gz") and not name.startswith(".") for name in written)
    assert len(written) < VOLUMES
    with started(tmp_path, "bright3d") as again:
        printed, told = again.communicate(timeout=PATIENCE)
    assert (again.returncode, told) == (0, "")
    assert printed.count("is there already") == len(written)
    for number in range(VOLUMES):
        labels = nibabel.load(tmp_path / "out" / f"{number}_labels.nii.gz")
        assert np.array_equal(np.asarray(labels.dataobj), ball() > CUT)
