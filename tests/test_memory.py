"""Kept memory: asked for once, for the whole process, in processes of its own here."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch, nansparse
from nansparse.memory import memory_is_kept
torch.set_num_threads(1)
assert not memory_is_kept()
assert not {keep} or nansparse.keep_memory()
assert memory_is_kept() == {keep}
image = torch.ones(1, 16, 512, 512)
for _ in range(3):
    several = [image * k for k in range(6)]
    del several
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    several = [image * k for k in range(6)]
    del several
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_kept_memory_is_used_again():
    # Five times six tensors of 4096 pages each, and none of them new.
    assert faults(keep=True) < 20_000


def test_another_allocator_is_left_alone(monkeypatch):
    from nansparse import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory, "_allocator", memory._Allocator())
    assert not memory.keep_memory()
    assert not memory.memory_is_kept()
