"""How much memory a computation needs at its peak, over what was held before."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_MIB = 1 << 20
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(run: Callable[[], Any], device: torch.device) -> float | None:
    """Measure the memory that a call needs at its peak.

    On a GPU it is what torch allocates. On a CPU under Linux it is the growth of the resident memory, which
    the kernel records; the allocator is asked to hand back what it holds free, so that reused memory counts.

    Args:
        run: What is measured.
        device: Where it computes.

    Returns:
        MiB over what was held before; None where the system does not tell.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return (torch.cuda.max_memory_allocated(device) - before) / _MIB
    try:
        _trim()
        _RESET.write_text("5")
        resident = _kib("VmRSS")
    except (OSError, TypeError):
        run()
        return None
    run()
    return (_kib("VmHWM") - resident) / 1024


def resident_memory() -> float | None:
    """Read how much memory the process holds.

    Returns:
        MiB, without what the allocator holds free; None where the system does not tell.
    """
    try:
        _trim()
        return _kib("VmRSS") / 1024
    except OSError:
        return None


def _trim() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc only; without it what is read is a lower bound of the growth


def _kib(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", _STATUS.read_text())
    if found is None:
        raise OSError(f"no {name} in {_STATUS}")
    return int(found[1])
