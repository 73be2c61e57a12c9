"""Adaptive max pooling: where its windows tile the grid, it is max pooling and follows its definitions.

Over the whole grid it is a statistic: the maximum of the real values, which marks nothing, because one tie
would erase the sample. Windows of unequal sizes are left to the dense way, NaN as IEEE has it.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch.nn.functional as F

from nansparse.handlers import pooling
from nansparse.handlers.arguments import REQUIRED, bind
from nansparse.model_call import Handler, ModelCall

_NAMES = [("input", REQUIRED), ("output_size", REQUIRED), ("return_indices", False)]
_WITH_INDICES = (F.adaptive_max_pool2d_with_indices, F.adaptive_max_pool3d_with_indices)
_POOLS = {2: F.max_pool2d, 3: F.max_pool3d}


def _adaptive(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind(_NAMES, args, kwargs)
    if bound is None:
        return NotImplemented
    x, size = bound["input"], bound["output_size"]
    rank = 2 if "2d" in func.__name__ else 3
    if x.dim() not in (rank + 1, rank + 2):
        return NotImplemented
    grid = tuple(x.shape[-rank:])
    sizes = (size,) * rank if isinstance(size, int) or size is None else tuple(size)
    out = tuple(g if s is None else s for g, s in zip(grid, sizes, strict=False))
    if len(out) != rank or any(s < 1 or g % s for g, s in zip(grid, out, strict=True)):
        return NotImplemented
    if set(out) == {1}:
        call = copy.copy(call)
        call.turn, call.policy = None, replace(call.policy, max_ties=max(math.prod(grid), 1))
    kernel = tuple(g // s for g, s in zip(grid, out, strict=True))
    indices = bound["return_indices"] or func in _WITH_INDICES
    pool = pooling.HANDLERS[_POOLS[rank]]
    return pool(call, _POOLS[rank], (x, kernel), {"return_indices": indices})


HANDLERS: dict[Any, Handler] = dict.fromkeys(
    (F.adaptive_max_pool2d, F.adaptive_max_pool3d, *_WITH_INDICES), _adaptive
)
