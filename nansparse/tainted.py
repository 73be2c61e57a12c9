"""Plain tensors that a model wrote NaN into, such as a buffer filled slice by slice.

They stay plain, so that views of them and later writes work as ever; an operation that reads one gets a
marked tensor.
"""

from typing import Any

import torch
from torch import Tensor

from nansparse.marked import MarkedTensor

# What gives another view of the same memory (or a copy, as indexing with a tensor does).
VIEWS = frozenset({
    "__getitem__", "__iter__", "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "permute",
    "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "squeeze", "unsqueeze", "narrow",
    "select", "chunk", "split", "tensor_split", "unbind", "expand", "expand_as", "detach", "diagonal",
    "unfold", "as_strided", "Tensor.T", "Tensor.mT", "Tensor.data",
})  # fmt: skip


class TaintedStorages:
    """Storages of plain tensors that NaN was written into, kept alive so that their addresses stay theirs."""

    def __init__(self) -> None:
        """Start empty."""
        self._storages: dict[int, Any] = {}

    def __bool__(self) -> bool:
        """Say whether there is any.

        Returns:
            True if there is.
        """
        return bool(self._storages)

    def add(self, x: Tensor) -> None:
        """Remember a tensor that was written to, if it holds NaN.

        Args:
            x: The tensor.
        """
        if x.is_floating_point() and bool(x.isnan().any()):
            storage = x.untyped_storage()
            self._storages[storage.data_ptr()] = storage

    def holds(self, value: Any) -> bool:
        """Say whether a value is a plain tensor that NaN was written into.

        Args:
            value: Anything.

        Returns:
            True if it is, or is a view of one.
        """
        if not isinstance(value, Tensor) or isinstance(value, MarkedTensor) or value.layout != torch.strided:
            return False
        return value.untyped_storage().data_ptr() in self._storages
