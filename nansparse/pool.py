"""Memory for rows that is used again within one call of a model.

Every operation of a network writes a new activation, and drops one. The C library gives blocks that large
back to the system and gets them anew, and the system clears every page of them: on a CPU that can take as
long as the arithmetic. `RowPool` hands out what was dropped before. It lives as long as the call and leaves
nothing behind.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Smaller blocks stay in the C library's own lists.
LEAST_CELLS = 1 << 16
# Cells kept at a time: operations of torch get their memory elsewhere, so what waits here adds to the peak.
MOST_CELLS = 5 << 20
# Share of a block that whoever gets it must need.
LEAST_USED = 0.5
# Cells of a cache line; rows begin at one.
LINE = 16


class RowPool:
    """Blocks of float32 memory, handed out as tensors; a block comes back when nothing uses it any more."""

    def __init__(self) -> None:
        """Start without blocks."""
        self._free: list[np.ndarray] = []
        # Tensors die at any moment, while a block is looked for too: what comes back waits here.
        self._returned: deque[np.ndarray] = deque()
        self._open, self._lock = False, threading.Lock()

    def __enter__(self) -> RowPool:
        """Serve the calls of `empty_rows` in this thread.

        Returns:
            The pool.
        """
        self._open, self._before = True, _serving.pool
        _serving.pool = self
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Let go of all blocks; those in use die with what uses them."""
        _serving.pool = self._before
        with self._lock:
            self._open = False
            self._free.clear()
            self._returned.clear()

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """Get uninitialised memory.

        Args:
            shape: What is needed.

        Returns:
            A contiguous tensor, float32, the caller's as long as it or a view of it lives.
        """
        cells = math.prod(shape)
        with self._lock:
            while self._returned:
                self._free.append(self._returned.popleft())
            self._free.sort(key=len)
            fits = [n for n, b in enumerate(self._free) if LEAST_USED * len(b) <= cells + LINE <= len(b)]
            block = self._free.pop(fits[0]) if fits else np.empty(cells + LINE, np.float32)
        start = -(block.ctypes.data // 4) % LINE
        part = block[start : start + cells]
        weakref.finalize(part, self._give_back, block).atexit = False
        return torch.from_numpy(part).view(shape)

    def _give_back(self, block: np.ndarray) -> None:
        waiting = sum(map(len, (*self._returned, *self._free)))
        if self._open and waiting + len(block) <= MOST_CELLS:
            self._returned.append(block)


class _Serving(threading.local):
    pool: RowPool | None = None


_serving = _Serving()


def empty_rows(like: Tensor, *shape: int) -> Tensor:
    """Get memory for the result of an operation, from the pool of the running call if there is one.

    Args:
        like: Tensor with the dtype and device wanted.
        *shape: What is needed.

    Returns:
        A contiguous tensor, uninitialised.
    """
    if like.device.type != "cpu" or like.dtype != torch.float32 or math.prod(shape) < LEAST_CELLS:
        return like.new_empty(shape)
    pool = _serving.pool
    return RowPool().take(shape) if pool is None else pool.take(shape)
