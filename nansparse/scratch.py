"""Memory that an engine uses again, so that each layer does not ask the system for it anew."""

import math
import threading

import torch
from torch import Tensor

# Larger pieces are left to the allocator: what is kept stays bounded.
MOST_CELLS_KEPT = 1 << 24


class Scratch(threading.local):
    """One buffer a purpose and thread; what it held before is lost when it is taken again."""

    def __init__(self) -> None:
        """Start without buffers."""
        self._buffers: dict[str, Tensor] = {}

    def take(self, purpose: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Get uninitialised memory.

        Args:
            purpose: Buffers of different purposes can be used at the same time.
            shape: What is needed.
            like: Tensor with the dtype and device wanted.

        Returns:
            A contiguous tensor, valid until the same thread takes the same purpose again.
        """
        cells = math.prod(shape)
        if cells > MOST_CELLS_KEPT or like.device.type != "cpu":
            return like.new_empty(shape)
        kept = self._buffers.get(purpose)
        if kept is None or kept.numel() < cells or kept.dtype != like.dtype:
            # A buffer made in inference mode could not be written outside of it.
            with torch.inference_mode(mode=False):
                kept = torch.empty(cells, dtype=like.dtype)
            self._buffers[purpose] = kept
        return kept[:cells].view(shape)
