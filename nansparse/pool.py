"""Memory for rows that is used again within a `with` block.

Every operation of a network writes a new activation, and drops one. The C library gives blocks that large
back to the system and gets them anew, and the system clears every page of them: on a CPU that can take as
long as the arithmetic. `RowPool` hands out what was dropped before, by an earlier call of the model too, as
the caching allocators of GPUs do. It lives as long as the block and leaves nothing behind.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

# Smaller blocks stay in the C library's own lists.
LEAST_CELLS = 1 << 16
# Cells that may wait in any case.
MOST_CELLS = 5 << 20
# Blocks in use and waiting, in sizes of the largest: most dense runs hold as much, for a layer's
# input, its output and what skips to a later layer.
KEPT = 3
# Share of a block that whoever gets it must need.
LEAST_USED = 0.5
# Cells of a cache line; rows begin at one.
LINE = 16


class RowPool:
    """Blocks of float32 memory, handed out as tensors; a block comes back when nothing uses it any more."""

    def __init__(self) -> None:
        """Start without blocks."""
        # What waited longest is in front.
        self._free: list[np.ndarray] = []
        # Tensors die at any moment, in any thread, while a block is looked for too: what comes back waits
        # here until the lock is free.
        self._returned: deque[np.ndarray] = deque()
        self._lock = threading.Lock()
        self._open, self._serving, self._used, self._largest = True, 0, 0, 0

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Serve the calls of `empty_rows` in this thread.

        Yields:
            Nothing.
        """
        before, _current.pool = _current.pool, self
        with self._lock:
            self._serving += 1
        try:
            yield
        finally:
            _current.pool = before
            with self._lock:
                self._serving -= 1
                if not self._serving:
                    # What is still out is a result, and its owner's affair.
                    self._used = 0

    def close(self) -> None:
        """Let go of all blocks; those in use die with what uses them."""
        with self._lock:
            self._open = False
            self._settle()

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """Get uninitialised memory.

        Args:
            shape: What is needed.

        Returns:
            A contiguous tensor, float32, the caller's as long as it or a view of it lives.
        """
        cells = math.prod(shape)
        with self._lock:
            self._settle()
            fits = [
                (len(block), number)
                for number, block in enumerate(self._free)
                if LEAST_USED * len(block) <= cells + LINE <= len(block)
            ]
            block = self._free.pop(min(fits)[1]) if fits else np.empty(cells + LINE, np.float32)
            self._used += len(block)
            self._largest = max(self._largest, len(block))
            self._trim()
        start = -(block.ctypes.data // 4) % LINE
        part = block[start : start + cells]
        weakref.finalize(part, self._give_back, block).atexit = False
        return torch.from_numpy(part).view(shape)

    def make_room(self, cells: int) -> None:
        """Let go of what would be too much beside memory that comes from elsewhere.

        Args:
            cells: Float32 cells that are about to be taken.
        """
        with self._lock:
            self._settle()
            self._trim(cells)

    def _give_back(self, block: np.ndarray) -> None:
        self._returned.append(block)
        # Who holds the lock may be this very thread, interrupted; it finds the block the next time.
        if self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        """Take in what came back; under the lock."""
        while self._returned:
            block = self._returned.popleft()
            self._used = max(0, self._used - len(block))
            self._free.append(block)
        self._trim()

    def _trim(self, elsewhere: int = 0) -> None:
        """Let go of what waited longest, until no more is held than should be; under the lock."""
        most = max(MOST_CELLS, KEPT * self._largest - self._used - elsewhere) if self._open else 0
        while sum(map(len, self._free)) > most:
            del self._free[0]


class _Current(threading.local):
    pool: RowPool | None = None


_current = _Current()


def empty_rows(like: Tensor, *shape: int) -> Tensor:
    """Get memory for the result of an operation, from the pool of the running block if there is one.

    Args:
        like: Tensor with the dtype and device wanted.
        *shape: What is needed.

    Returns:
        A contiguous tensor, uninitialised.
    """
    if like.device.type != "cpu" or like.dtype != torch.float32 or math.prod(shape) < LEAST_CELLS:
        return like.new_empty(shape)
    pool = _current.pool
    return (pool or RowPool()).take(shape)


def make_room(cells: int) -> None:
    """Let the pool of the running block let go of what would be too much beside other memory.

    Args:
        cells: Float32 cells that are about to be taken elsewhere.
    """
    if _current.pool is not None:
        _current.pool.make_room(cells)
