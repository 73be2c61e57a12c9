"""What nansparse knows to do with marked tensors: one file a family of operations.

A handler takes (call, func, args, kwargs) and returns the result, or `NotImplemented` to leave the call to
the dense way. `ALWAYS` are the operations that make NaN or are counted, marked input or not. `STEPS` are put
off and `REGIONS` keep uniform regions, on tensors without NaN.
"""

from typing import Any

from nansparse.handlers import (
    adaptive,
    averages,
    convolution,
    native_norms,
    normalization,
    pointwise,
    pooling,
    resampling,
    shape,
    uniform,
    unpooling,
)
from nansparse.handlers.deferring import STEPS
from nansparse.model_call import Handler

FAMILIES = (
    *(convolution, pooling, adaptive, unpooling, normalization, native_norms, averages),
    *(resampling, pointwise, shape),
)
HANDLERS: dict[Any, Handler] = {
    func: handler for family in FAMILIES for func, handler in family.HANDLERS.items()
}
REGIONS = uniform.RULES
ALWAYS = frozenset({*convolution.HANDLERS, *pooling.HANDLERS, *adaptive.HANDLERS, *unpooling.HANDLERS})

__all__ = ["ALWAYS", "FAMILIES", "HANDLERS", "REGIONS", "STEPS"]
