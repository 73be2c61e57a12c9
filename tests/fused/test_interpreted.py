"""The kernels for GPUs, run on a CPU by Triton's own interpreter, each time in a process of its own.

Triton decides on import whether it interprets, and what it interprets stands in the place of the loops that
are compiled for CPUs. Left out: bfloat16, which the interpreter cannot multiply.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Small cases: the interpreter needs a second for what a GPU does in no time, and one thread.
SMALL = "(computes or exactly_at or every_site or padding_counts or infinities)"
RUNS = {
    "the contract": [
        "tests/engines/test_contract.py",
        "-k",
        f"triton and {SMALL} and not spconv and not bfloat16",
    ],
    "whole models": ["tests/session/test_enable.py", "-k", "equals_its_definition and float32 or triton"],
    "steps and activations": ["tests/handlers/test_pending.py", "tests/handlers/test_binary.py"],
}


@pytest.mark.slow
@pytest.mark.parametrize("what", RUNS)
def test_interpreted(what):
    pytest.importorskip("triton")
    command = ["env", "TRITON_INTERPRET=1", sys.executable, "-m", "pytest", "-q", "-p", "no:xdist"]
    command += ["-p", "no:cacheprovider", "-p", "tests.fused.interpreting", "-o", "filterwarnings=default"]
    command += RUNS[what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
