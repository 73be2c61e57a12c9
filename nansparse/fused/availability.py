"""Whether Triton's kernels can run on a device."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from nansparse.compiled.availability import Held
from nansparse.library import Library, first_line

TRITON = Library("triton", "pip install triton")
# What the kernels multiply; float64 has no place in the units that multiply matrices.
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Fused:
    """The kernels.

    Attributes:
        windows: `nansparse.fused.windows`.
        products: `nansparse.fused.products`.
        steps: `nansparse.fused.steps`.
        pooling: `nansparse.fused.pooling`.
        devices: The device types they run on.
    """

    def __init__(self) -> None:
        """Load the kernels; each is compiled when it is first launched, and kept in Triton's cache."""
        from nansparse.fused import pooling, products, steps, windows

        self.windows, self.products = windows, products
        self.steps, self.pooling = steps, pooling
        # Triton's own interpreter, which a user can ask Triton for, runs kernels on CPUs: so tests do.
        interpreted = type(windows.count_windows).__name__ == "InterpretedFunction"
        self.devices = ("cpu", "cuda") if interpreted else ("cuda",)

    def run(self, launch: Any, *arguments: Any, into: tuple[Any, ...] = ()) -> Any:
        """Run what launches kernels, as `nansparse.compiled.Kernels` runs a loop.

        Args:
            launch: A function.
            *arguments: What it reads.
            into: Its last arguments, what it writes.

        Returns:
            What the function returns.
        """
        return launch(*arguments, *into)


def fused_for(x: Held) -> Fused | None:
    """Find the kernels for a tensor or an activation.

    Args:
        x: What they would work on.

    Returns:
        The kernels; None where Triton is missing or does not load, or for another device or dtype.
    """
    return fused_on(x.device) if x.dtype in DTYPES else None


def fused_on(device: torch.device) -> Fused | None:
    """Find the kernels for a device.

    Args:
        device: Where they would run.

    Returns:
        The kernels; None where Triton is missing or does not load, or for another device.
    """
    if device.type == "cpu" and not _interpreting():
        return None
    fused = _loaded()
    return fused if isinstance(fused, Fused) and device.type in fused.devices else None


def fused_problem() -> str:
    """Say why there are no kernels here, with the remedy.

    Returns:
        One sentence; empty if there are.
    """
    fused = _loaded()
    return fused if isinstance(fused, str) else ""


def fused_devices() -> tuple[str, ...]:
    """Say which device types the kernels run on.

    Returns:
        Their names; none where Triton is missing or does not load.
    """
    fused = _loaded()
    return fused.devices if isinstance(fused, Fused) else ()


def _interpreting() -> bool:
    """Look whether Triton was loaded as an interpreter, without loading it for runs on CPUs."""
    return _loaded.cache_info().currsize > 0 and "cpu" in getattr(_loaded(), "devices", ())


@cache
def _loaded() -> Fused | str:
    if TRITON.problem:
        return TRITON.problem
    try:
        return Fused()
    except Exception as fault:
        return f"{TRITON.versions} cannot be used ({first_line(fault)}); reinstall it: {TRITON.install}"
