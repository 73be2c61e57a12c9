"""Max unpooling, where remembered ties become NaN."""

from typing import Any

import torch.nn.functional as F

from nansparse.activation import SparseActivation
from nansparse.functional import nan_max_unpool
from nansparse.functional.pooling import pooling_windows
from nansparse.handlers.arguments import REQUIRED, bind
from nansparse.handlers.unbatched import TIES, unpool_one
from nansparse.marked import MarkedTensor, densified
from nansparse.model_call import Handler, ModelCall
from nansparse.unpooling import PoolMemory, Unpooled

_UNPOOL = [("input", REQUIRED), ("indices", REQUIRED), ("kernel_size", REQUIRED), ("stride", None)]
_UNPOOL = [*_UNPOOL, ("padding", 0), ("output_size", None)]


def _unpool(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run max_unpool2d or max_unpool3d."""
    bound = bind(_UNPOOL, args, kwargs)
    if bound is None:
        return NotImplemented
    values, indices = bound["input"], bound["indices"]
    memory = indices.payload if isinstance(indices, MarkedTensor) else None
    ties = getattr(indices, TIES, None)
    rank = 2 if "2d" in func.__name__ else 3
    with call.recorded(func.__name__) as facts:
        if not isinstance(values, MarkedTensor) and not isinstance(indices, MarkedTensor) and ties is None:
            return func(*args, **kwargs)
        if values.dim() != rank + 2:
            facts.update(engine="dense", densified=1)
            return unpool_one(call, values, indices, tuple(bound.values())[2:])
        if isinstance(memory, PoolMemory) and _undoes(memory, bound):
            facts["engine"] = "rows"
            source = (
                values.sparse() if isinstance(values, MarkedTensor) else SparseActivation.from_dense(values)
            )
            return call.wrap(Unpooled(source, memory))
        facts.update(engine="functional", densified=1)
        if isinstance(memory, PoolMemory):
            ties = memory.ties()
        options = (bound["kernel_size"], bound["stride"], bound["padding"], bound["output_size"])
        return call.mark(nan_max_unpool(densified(values), densified(indices), *options, ties=ties))


def _undoes(memory: PoolMemory, bound: dict[str, Any]) -> bool:
    """Say whether an unpooling is the exact inverse of the pooling that is remembered."""
    windows = memory.windows
    rank = len(windows.grid)
    size = bound["output_size"]
    default = tuple(o * k for o, k in zip(windows.out_grid, windows.kernel, strict=True))
    out = default if size is None else tuple(int(v) for v in size[-rank:])
    same = pooling_windows(out, bound["kernel_size"], bound["stride"], bound["padding"], 1, ceil_mode=False)
    return (
        out == windows.grid
        and same.kernel == windows.kernel
        and same.stride == windows.stride
        and same.padding == windows.padding
    )


HANDLERS: dict[Any, Handler] = dict.fromkeys((F.max_unpool2d, F.max_unpool3d), _unpool)
