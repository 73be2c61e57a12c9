"""`MarkedTensor`: what a model holds in place of a tensor with NaN, while nansparse runs it.

It says the shape, dtype, device and strides of the tensor it stands for, and holds one of four payloads: a
`SparseActivation`, an `Unpooled` activation, the `PoolMemory` behind pooling indices, or a plain tensor with
NaN (any other rank). One that outlives its run, kept by a hook or as state of the model, is used like the
dense tensor, NaN included.
"""

from __future__ import annotations

import copy
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from nansparse.activation import SparseActivation
from nansparse.changes import written
from nansparse.errors import NansparseError
from nansparse.nesting import same_index
from nansparse.questions import is_question
from nansparse.strides import strides_of
from nansparse.unpooling import PoolMemory, Unpooled

if TYPE_CHECKING:
    from nansparse.model_call import ModelCall

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
    # Whether the payload is a dense tensor that nobody else holds.
    _settled = False

    @staticmethod
    def __new__(
        cls: type[MarkedTensor],
        payload: Payload,
        *,
        channels_last: bool = False,
        view_of: MarkedTensor | None = None,
        call: ModelCall | None = None,
    ) -> MarkedTensor:
        """Wrap a payload.

        Args:
            cls: The class.
            payload: What this tensor stands for.
            channels_last: Whether its strides say so.
            view_of: The tensor whose memory it would share.
            call: The call of the model that it belongs to.

        Returns:
            The wrapper.
        """
        del view_of, call
        shape = torch.Size(payload.shape)
        return torch.Tensor._make_wrapper_subclass(
            cls,
            shape,
            strides=strides_of(shape, channels_last=channels_last),
            dtype=payload.dtype,
            device=payload.device,
        )

    def __init__(
        self,
        payload: Payload,
        *,
        channels_last: bool = False,
        view_of: MarkedTensor | None = None,
        call: ModelCall | None = None,
    ) -> None:
        """Keep the payload."""
        self._channels_last = channels_last
        self._call = None if call is None else weakref.ref(call)
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
        self._payload, self._settled = payload, False
        self.note_change()

    def note_change(self) -> None:
        """Let the tensors that would share memory know."""
        self._alias.writers.append(id(self))
        self._seen = len(self._alias.writers)

    @property
    def running(self) -> ModelCall | None:
        """The call of the model that this tensor belongs to, until it is over."""
        call = None if self._call is None else self._call()
        return None if call is None or call.over else call

    def settle(self) -> Tensor:
        """Hold the dense tensor from here on, whose memory others may see and change.

        Returns:
            That tensor, the same one every time.
        """
        if not self._settled:
            self._payload, self._settled = self.dense().clone(), True
        return self.dense()

    def take_back(self, part: MarkedTensor, index: Any) -> None:
        """Make `x[index] += y` work: the part that was changed in place is put back where it was taken from.

        Args:
            part: What is about to be assigned.
            index: Where.
        """
        by_part = all(writer == id(part) for writer in self._alias.writers[self._seen :])
        if part._alias is self._alias and by_part and same_index(part.index, index):
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
        dense = self.dense()
        # Steps that are put off read it later, and others may write to it by then.
        return SparseActivation.from_dense(dense.clone() if self._settled else dense)

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
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation that no mode has caught: the run is over, or this is another thread."""
        del types
        if is_question(func) and args and isinstance(args[0], MarkedTensor):
            # What is settled may have another shape by now.
            asked = args[0]._payload if args[0]._settled else args[0]
            with torch._C.DisableTorchFunctionSubclass():
                return func(asked, *args[1:], **kwargs or {})
        return _run_unseen(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub forgets that it is a classmethod
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation that torch functions do not show, as those inside a scripted function."""
        del types
        return _run_unseen(func, args, kwargs or {})

    def __copy__(self) -> Tensor:
        """Share memory with another tensor."""
        call = self.running
        return copy.copy(self.settle()) if call is None else call.wrap(self.payload, self)

    def as_subclass(self, cls: type[Tensor]) -> Any:
        """Share memory with a tensor of another class; within a run a plain one stays marked."""
        call = self.running
        if call is not None and cls in (Tensor, MarkedTensor):
            return call.wrap(self.payload, self)
        made = self.settle().as_subclass(cls)
        if call is not None:
            call.tainted.add(made)
        return made


def _run_unseen(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    marked = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, MarkedTensor)]
    call = next((one.running for one in marked if one.running is not None), None)
    if call is not None:
        return call.run_unseen(func, args, kwargs)
    result = func(*tree_map(settled, args), **tree_map(settled, kwargs))
    for changed in written(func, args, kwargs):
        if isinstance(changed, MarkedTensor):
            changed.note_change()
    # What torch hands back, as in-place operations do, is the very tensor that was given.
    return next((one for one in marked if one._payload is result), result)


def settled(value: Any) -> Any:
    """Let a marked tensor hold its dense tensor, and leave anything else alone.

    Args:
        value: Anything.

    Returns:
        The dense tensor, or the value itself.
    """
    return value.settle() if isinstance(value, MarkedTensor) else value


def densified(value: Any) -> Any:
    """Turn a marked tensor into its dense tensor and leave anything else alone.

    Args:
        value: Anything.

    Returns:
        The dense tensor, or the value itself.
    """
    return value.dense() if isinstance(value, MarkedTensor) else value
