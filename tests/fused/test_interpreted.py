"""The kernels for GPUs, run on a CPU by Triton's own interpreter, in a process of its own.

Triton decides on import whether it interprets, and what it interprets stands in the place of the loops that
are compiled for CPUs. Left out: bfloat16, which the interpreter cannot multiply.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = (
    "engines/test_contract.py",
    "session/test_enable.py",
    "handlers/test_pending.py",
    "handlers/test_binary.py",
    "fused/test_peaks.py",
)
# Small cases: the interpreter needs a second for what a GPU does in no time, and one thread.
CONTRACT = "triton and (computes or exactly_at or every_site or padding_counts or infinities)"
CHOSEN = (
    f"({CONTRACT} and not spconv and not bfloat16)"
    " or (equals_its_definition and float32 and (conservative or SegNet) and not classifier)"
    " or test_pending or test_peaks or two_activations or lazily_unpooled"
)


@pytest.mark.slow
def test_the_kernels_compute_what_the_definitions_say():
    pytest.importorskip("triton")
    command = [
        "env",
        "TRITON_INTERPRET=1",
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        "-k",
        CHOSEN,
    ]
    command += ["-p", "no:cacheprovider", "-p", "tests.fused.interpreting", "-o", "filterwarnings=default"]
    command += [f"tests/{name}" for name in FILES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
