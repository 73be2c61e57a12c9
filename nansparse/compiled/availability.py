"""Whether compiled loops can run here, and on how many threads they do."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from nansparse.library import Library, first_line

NUMBA = Library("numba", 'pip install "nansparse[numba]"')


class Kernels:
    """The compiled loops, run on as many threads as torch uses.

    Attributes:
        windows: `nansparse.compiled.windows`.
        cells: `nansparse.compiled.cells`.
        pooling: `nansparse.compiled.pooling`.
        microkernel: `nansparse.compiled.microkernel`.
        products: `nansparse.compiled.products`.
        steps: `nansparse.compiled.steps`.
        means: `nansparse.compiled.means`.
        repeats: `nansparse.compiled.repeats`.
        tiles: `nansparse.compiled.tiles`.
        winograd: `nansparse.compiled.winograd`.
    """

    def __init__(self, numba: ModuleType) -> None:
        """Load the loops; they are compiled the first time, and kept in numba's cache.

        Args:
            numba: The library.
        """
        from nansparse.compiled import (
            cells,
            means,
            microkernel,
            pooling,
            products,
            repeats,
            steps,
            tiles,
            windows,
            winograd,
        )

        self.windows, self.cells, self.pooling = windows, cells, pooling
        self.microkernel, self.products = microkernel, products
        self.steps, self.means, self.repeats = steps, means, repeats
        self.tiles, self.winograd = tiles, winograd
        self._numba = numba
        self._most = int(numba.config.NUMBA_NUM_THREADS)

    def run(self, loop: Any, *arguments: Any, into: tuple[Any, ...] = ()) -> Any:
        """Run one loop.

        Args:
            loop: A function of one of the modules.
            *arguments: What it reads; CPU tensors are handed over as numpy arrays (contiguous ones, by a copy
                where they are not).
            into: Its last arguments, what it writes; contiguous, or numba raises TypeError, since what is
                written into a copy would be lost.

        Returns:
            What the loop returns.
        """
        self._numba.set_num_threads(min(torch.get_num_threads(), self._most))
        read = [_array(a) if isinstance(a, Tensor) else a for a in arguments]
        return loop(*read, *[a.detach().numpy() if isinstance(a, Tensor) else a for a in into])


def _array(x: Tensor) -> Any:
    # What need not be done is not asked for: there are two dozen arguments a call.
    x = x.detach() if x.requires_grad else x
    return x.numpy() if x.is_contiguous() else x.contiguous().numpy()


class Held(Protocol):
    """Anything that has values somewhere, a tensor or an activation."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the values."""

    @property
    def device(self) -> torch.device:
        """Where the values live."""


def kernels_for(x: Held) -> Kernels | None:
    """Find the compiled loops for a tensor or an activation.

    Args:
        x: What they would work on.

    Returns:
        The loops; None where numba is missing or cannot run in parallel, or for another device or dtype.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return None
    kernels = _loaded()
    return kernels if isinstance(kernels, Kernels) else None


def kernels_problem() -> str:
    """Say why there are no compiled loops here, with the remedy.

    Returns:
        One sentence; empty if there are.
    """
    kernels = _loaded()
    return kernels if isinstance(kernels, str) else ""


@cache
def _loaded() -> Kernels | str:
    """Load the loops, or say what is wrong: no reason to stop, since torch can do all of it too."""
    if NUMBA.problem:
        return NUMBA.problem
    threads = torch.get_num_threads()
    try:
        numba = NUMBA.load()
        if sys.platform == "linux" and numba.config.THREADING_LAYER == "default":
            # torch's own threads are OpenMP's: two kinds of threads would wait for each other's cores. The
            # layer that numba would take elsewhere may not be called from several Python threads at once.
            numba.config.THREADING_LAYER = "omp"
        elif numba.config.THREADING_LAYER in ("default", "workqueue"):
            numba.config.THREADING_LAYER = "threadsafe"
        kernels = Kernels(numba)
        kernels.run(kernels.windows.try_threads, into=(torch.zeros(2),))
    except Exception as fault:
        return (
            f"{NUMBA.versions} cannot run its loops here ({first_line(fault)}); reinstall it: {NUMBA.install}"
        )
    finally:
        # Starting its threads, numba sets OpenMP's number of them to that of the cores, which is torch's too.
        torch.set_num_threads(threads)
    return kernels
