"""`MarkedTensor`: what a model holds in place of a tensor with NaN, while nansparse runs it.

It says the shape, dtype, device and strides of the tensor it stands for, and holds one of four payloads: a
`SparseActivation`, an `Unpooled` activation, the `PoolMemory` behind pooling indices, or a plain tensor with
NaN (any other rank). Used outside of a run, it turns into the dense tensor, NaN included.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from nansparse.activation import SparseActivation
from nansparse.errors import NansparseError
from nansparse.unpooling import PoolMemory, Unpooled

Payload = SparseActivation | Unpooled | PoolMemory | Tensor


class _Alias:
    """Shared by the tensors that would share memory: who changed it in place, in order."""

    def __init__(self) -> None:
        self.writers: list[int] = []


class MarkedTensor(torch.Tensor):
    """Stands for a tensor that holds NaN (or for the indices that go with one)."""

    _payload: Payload
    _alias: _Alias
    _seen: int
    # Where in another marked tensor this one was found, if it was made by indexing.
    index: Any = None

    @staticmethod
    def __new__(
        cls: type[MarkedTensor],
        payload: Payload,
        *,
        channels_last: bool = False,
        view_of: MarkedTensor | None = None,
    ) -> MarkedTensor:
        """Wrap a payload.

        Args:
            cls: The class.
            payload: What this tensor stands for.
            channels_last: Whether its strides say so.
            view_of: The tensor whose memory it would share.

        Returns:
            The wrapper.
        """
        del view_of
        shape = torch.Size(payload.shape)
        return torch.Tensor._make_wrapper_subclass(
            cls,
            shape,
            strides=strides_of(shape, channels_last=channels_last),
            dtype=payload.dtype,
            device=payload.device,
        )

    def __init__(
        self, payload: Payload, *, channels_last: bool = False, view_of: MarkedTensor | None = None
    ) -> None:
        """Keep the payload."""
        self._channels_last = channels_last
        self._payload = payload
        self._alias = _Alias() if view_of is None else view_of._alias
        self._seen = len(self._alias.writers)

    @property
    def payload(self) -> Payload:
        """What this tensor stands for.

        Raises:
            NansparseError: If a tensor that shares its memory was changed in place since.
        """
        if self._seen != len(self._alias.writers):
            raise NansparseError(
                "a marked activation was changed in place through a view of it (or the other way round), "
                "which nansparse cannot follow: use the out-of-place operation, or .clone() first"
            )
        return self._payload

    def replace(self, payload: Payload) -> None:
        """Change what this tensor stands for, as an in-place operation does.

        Args:
            payload: The new payload, of the same shape.
        """
        self._payload = payload
        self._alias.writers.append(id(self))
        self._seen = len(self._alias.writers)

    def take_back(self, part: MarkedTensor, index: Any) -> None:
        """Make `x[index] += y` work: the part that was changed in place is put back where it was taken from.

        Args:
            part: What is about to be assigned.
            index: Where.
        """
        changes = self._alias.writers[self._seen :]
        if (
            part._alias is self._alias
            and all(w == id(part) for w in changes)
            and _same_index(part.index, index)
        ):
            self._seen = len(self._alias.writers)

    def sparse(self) -> SparseActivation:
        """Give the sparse form.

        Returns:
            The activation; a dense payload is converted.
        """
        payload = self.payload
        if isinstance(payload, Unpooled):
            return payload.everywhere
        if isinstance(payload, SparseActivation):
            return payload
        return SparseActivation.from_dense(self.dense())

    def dense(self) -> Tensor:
        """Give the dense tensor in the memory format that the model runs in.

        Returns:
            The tensor, NaN at missing sites.
        """
        payload = self.payload
        if isinstance(payload, Tensor):
            return payload
        dense = payload.to_dense()
        return dense if self._channels_last else dense.contiguous()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub forgets that it is a classmethod
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run any operation outside of a run on the dense tensor."""
        del types
        dense_args = tree_map(densified, args)
        return func(*dense_args, **tree_map(densified, kwargs or {}))


def densified(value: Any) -> Any:
    """Turn a marked tensor into its dense tensor and leave anything else alone.

    Args:
        value: Anything.

    Returns:
        The dense tensor, or the value itself.
    """
    return value.dense() if isinstance(value, MarkedTensor) else value


def _same_index(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same_index, one, other))
    known = (int, slice, type(Ellipsis))
    return isinstance(one, known) and type(one) is type(other) and one == other


@lru_cache(maxsize=256)
def strides_of(shape: torch.Size, *, channels_last: bool) -> list[int]:
    """Say how a tensor lies in memory.

    Args:
        shape: Its shape.
        channels_last: Whether channels come last; else they lie as the shape says.

    Returns:
        Cells from one entry of each axis to the next.
    """
    order = list(range(len(shape)))
    if channels_last and len(shape) in (4, 5):
        order = [0, *range(2, len(shape)), 1]
    strides = [0] * len(shape)
    step = 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return strides
