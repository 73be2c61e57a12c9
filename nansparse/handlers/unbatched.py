"""Pooling and unpooling of one image without a batch axis: as a batch of one, ties included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.functional import nan_max_unpool
from nansparse.marked import MarkedTensor, densified
from nansparse.model_call import ModelCall
from nansparse.unpooling import PoolMemory

# Remembered ties travel with the indices: an attribute of that very tensor, so they live as long as it does.
TIES = "_nansparse_ties"


def pool_one(
    call: ModelCall, pool: Callable[..., Any], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Pool (C, *spatial).

    Args:
        call: The state of the call.
        pool: The handler of batches.
        func: The torch function.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        The values, and the indices if they were asked for.
    """
    x = args[0] if args else kwargs["input"]
    marked = isinstance(x, MarkedTensor)
    batched = call.wrap(SparseActivation.from_dense(x.dense()[None])) if marked else x[None]
    rest = {name: value for name, value in kwargs.items() if name != "input"}
    result = pool(call, func, (batched, *args[1:]), rest)
    if isinstance(result, Tensor):
        return call.mark(densified(result)[0])
    values, indices = result
    memory = indices.payload if isinstance(indices, MarkedTensor) else None
    ties = memory.ties() if isinstance(memory, PoolMemory) else getattr(indices, TIES, None)
    one = densified(indices)[0]
    if ties is not None:
        setattr(one, TIES, ties[0])
    return call.mark(densified(values)[0]), one


def unpool_one(call: ModelCall, values: Tensor, indices: Tensor, options: tuple[Any, ...]) -> Tensor:
    """Unpool (C, *spatial).

    Args:
        call: The state of the call.
        values: What is put back.
        indices: Where.
        options: Kernel size, stride, padding and output size.

    Returns:
        The unpooled image.
    """
    ties = getattr(indices, TIES, None)
    batched = densified(values)[None], densified(indices)[None]
    return call.mark(nan_max_unpool(*batched, *options, ties=None if ties is None else ties[None])[0])
