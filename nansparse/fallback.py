"""An operation that nobody taught nansparse.

It runs on dense tensors, NaN at the missing sites, and is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from nansparse.activation import SparseActivation
from nansparse.changes import HANDS_OUT, operation_name, written
from nansparse.errors import NansparseError
from nansparse.marked import MarkedTensor, settled
from nansparse.unpooling import PoolMemory

if TYPE_CHECKING:
    from nansparse.model_call import ModelCall

TIES_LOST = "the model computes with pooling indices: the ties remembered with them do not reach an unpooling"


def run_dense(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on dense tensors.

    Args:
        call: The state of the call.
        func: The operation.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        Its result, marked where it holds NaN or is a view of a marked tensor.
    """
    name = operation_name(func)
    targets = written(func, args, kwargs)
    if name == "__setitem__" and all(isinstance(arg, MarkedTensor) for arg in (args[0], args[2])):
        args[0].take_back(args[2], args[1])
    leaves = tree_flatten((args, kwargs))[0]
    if name in HANDS_OUT:
        for leaf in leaves:
            settled(leaf)
    dense = _Dense(targets)
    with call.recorded(name) as facts:
        facts.update(engine="dense (untaught)", densified=1)
        if any(_remembers_ties(leaf) for leaf in leaves):
            facts["note"] = TIES_LOST
        result = func(*tree_map(dense, args), **tree_map(dense, kwargs))
    own: dict[int, Tensor] = {}
    for target in targets:
        if isinstance(target, MarkedTensor):
            changed = dense.copies[id(target)][1]
            _give_back(changed, target, name)
            own[id(changed)] = target
        else:
            call.tainted.add(target)
            own[id(target)] = target
    return tree_map(lambda value: own[id(value)] if id(value) in own else _marked(call, value, dense), result)


def _remembers_ties(value: Any) -> bool:
    payload = value.payload if isinstance(value, MarkedTensor) else None
    return isinstance(payload, PoolMemory) and payload.codes is not None


class _Dense:
    """Turns marked tensors into dense ones, each once, and remembers which became which."""

    def __init__(self, targets: list[Tensor]) -> None:
        self.targets = {id(target) for target in targets}
        self.copies: dict[int, tuple[MarkedTensor, Tensor]] = {}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, MarkedTensor):
            return value
        if id(value) not in self.copies:
            dense = value.dense()
            # Others may read what a marked tensor stands for: only a copy is written to.
            self.copies[id(value)] = (value, dense.clone() if id(value) in self.targets else dense)
        return self.copies[id(value)][1]


def _give_back(changed: Tensor, target: MarkedTensor, name: str) -> None:
    if changed.shape != target.shape or changed.dtype != target.dtype:
        raise NansparseError(
            f"{name} changes the shape or type of a marked activation in place, which nansparse cannot "
            "follow: use the out-of-place operation"
        )
    spatial = changed.dim() in (4, 5) and changed.is_floating_point()
    target.replace(SparseActivation.from_dense(changed) if spatial else changed)


def _marked(call: ModelCall, value: Any, dense: _Dense) -> Any:
    if not isinstance(value, Tensor):
        return value
    storage = _storage(value)
    base = next((marked for marked, copy in dense.copies.values() if _storage(copy) == storage), None)
    return call.mark(value) if base is None or not storage else call.mark_view(value, base)


def _storage(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()
