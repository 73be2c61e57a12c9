"""Whether compiled loops can run here, and on how many threads they do."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from nansparse.library import Library

NUMBA = Library("numba", 'pip install "nansparse[numba]"')
DTYPES = (torch.float32, torch.float64)


class Kernels:
    """The compiled loops, run on as many threads as torch uses.

    Attributes:
        windows: `nansparse.compiled.windows`.
        cells: `nansparse.compiled.cells`.
        pooling: `nansparse.compiled.pooling`.
    """

    def __init__(self, numba: ModuleType) -> None:
        """Load the loops; each is compiled when it is first called, and kept in numba's cache.

        Args:
            numba: The library.
        """
        from nansparse.compiled import cells, pooling, windows

        self.windows, self.cells, self.pooling = windows, cells, pooling
        self._numba = numba
        self._most = int(numba.config.NUMBA_NUM_THREADS)

    def run(self, loop: Any, *arguments: Any) -> Any:
        """Run one loop.

        Args:
            loop: A function of one of the modules.
            *arguments: Its arguments; CPU tensors are handed over as the numpy arrays that share their memory.

        Returns:
            What the loop returns.
        """
        self._numba.set_num_threads(min(torch.get_num_threads(), self._most))
        return loop(*[a.detach().numpy() if isinstance(a, Tensor) else a for a in arguments])


def kernels_for(x: Tensor) -> Kernels | None:
    """Find the compiled loops for a tensor.

    Args:
        x: What they would work on.

    Returns:
        The loops; None where numba is missing or cannot run in parallel, or for another device or dtype.
    """
    return _loaded() if x.device.type == "cpu" and x.dtype in DTYPES else None


@cache
def _loaded() -> Kernels | None:
    if not NUMBA.is_installed:
        return None
    try:
        import numba

        if sys.platform == "linux" and numba.config.THREADING_LAYER == "default":
            # torch's own threads are OpenMP's: two kinds of threads would wait for each other's cores. The
            # layer that numba would take elsewhere may not be called from several Python threads at once.
            numba.config.THREADING_LAYER = "omp"
        elif numba.config.THREADING_LAYER in ("default", "workqueue"):
            numba.config.THREADING_LAYER = "threadsafe"
        kernels = Kernels(numba)
        kernels.run(kernels.windows.try_threads, torch.zeros(2))
    except Exception:
        # A broken numba is no reason to stop: all of this is computed by plain torch too.
        return None
    return kernels
