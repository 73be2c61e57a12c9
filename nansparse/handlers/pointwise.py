"""Point-wise operations: they touch rows only, and NaN stays NaN."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.handlers.alignment import aligned, combined, read_operands
from nansparse.handlers.arguments import named_functions
from nansparse.marked import MarkedTensor
from nansparse.model_call import ModelCall
from nansparse.pending import Pending
from nansparse.strides import as_image, as_rows

# Each maps NaN to NaN (tests/handlers/test_pointwise.py holds every one of them to it).
UNARY = [
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign",
    "tanhshrink", "sigmoid", "logsigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "abs", "neg",
    "exp", "log", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "sin", "cos", "erf", "floor", "round",
    "ceil", "clamp", "clamp_min", "clamp_max", "__neg__", "__abs__",
]  # fmt: skip
# In eval mode they do nothing; left on, they draw their mask for the dense tensor.
DROPOUT = ["dropout", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"]
# Position of the flag `inplace` in torch.nn.functional.
INPLACE = {
    "relu": 1, "relu6": 1, "leaky_relu": 2, "elu": 2, "selu": 1, "celu": 2, "silu": 1, "mish": 1,
    "hardtanh": 3, "hardswish": 1, "hardsigmoid": 1,
}  # fmt: skip
BINARY = [
    "add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide", "maximum", "minimum", "rsub",
    "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__div__", "__truediv__",
    "__rtruediv__", "__rdiv__",
]  # fmt: skip
CHANGES_FIRST = ["__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__"]
# What keeps every value: the tensor itself, another view of it or a copy.
SAME = ["contiguous", "clone", "detach", "detach_", "requires_grad_", "alias", "view_as_real"]


def _unary(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, rest = _first(args, kwargs)
    if not _is_spatial(x) or any(isinstance(v, Tensor) for v in (*rest, *kwargs.values())):
        return NotImplemented
    name = func.__name__.rstrip("_") if not func.__name__.startswith("__") else func.__name__
    options = {k: v for k, v in kwargs.items() if k != "input"}
    in_place = func.__name__.endswith("_") and not func.__name__.startswith("__")
    if name in INPLACE and not in_place:
        at = INPLACE[name] - 1
        in_place = bool(options.pop("inplace", False) or (len(rest) > at and rest[at]))
        rest = rest[:at]
    if options.pop("out", None) is not None:
        return NotImplemented
    activation = x.sparse()
    bent = _bent(activation, name, rest, options)
    if bent is not None:
        return _give(call, x, bent, in_place=in_place)
    # An in-place operation works on a copy: the values may belong to another tensor as well.
    values = activation.values.clone() if func.__name__.endswith("_") else activation.values
    return _give(call, x, activation.with_values(func(values, *rest, **options)), in_place=in_place)


def _dropout(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    del call, func
    x, rest = _first(args, kwargs)
    off = kwargs.get("training", kwargs.get("train", rest[1] if len(rest) > 1 else True)) is False
    return x if off and isinstance(x, MarkedTensor) else NotImplemented


def _prelu(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, rest = _first(args, kwargs)
    weight: Any = rest[0] if rest else kwargs.get("weight")
    if not _is_spatial(x) or isinstance(weight, MarkedTensor):
        return NotImplemented
    activation = x.sparse()
    if not len(activation.sites):
        return call.wrap(activation)
    steps, channels = activation.pending, activation.channels
    if steps is not None and not steps.is_bent and is_slope(weight, steps):
        slope = weight.detach().expand(channels).clone()
        return call.wrap(activation.with_values(steps.bent(slope, activation)))
    image = as_image(activation.values, 1, (len(activation.values), 1))
    return call.wrap(activation.with_values(as_rows(func(image, weight))))


def _bent(
    activation: SparseActivation, name: str, rest: tuple[Any, ...], options: dict[str, Any]
) -> SparseActivation | None:
    """Add ReLU or leaky ReLU to the steps that are pending; None for anything else."""
    steps = activation.pending
    if steps is None or steps.is_bent:
        return None
    if name == "relu" and not rest and not options:
        return activation.with_values(steps.bent(None, activation))
    if name == "leaky_relu" and len(rest) + len(options) <= 1:
        given = rest[0] if rest else options.get("negative_slope", 0.01)
        slope = torch.full((activation.channels,), float(given), device=activation.device)
        return activation.with_values(steps.bent(slope, activation))
    return None


def is_slope(weight: Any, steps: Pending | Tensor) -> bool:
    """Say whether a weight of PReLU is given as the loops take it.

    Args:
        weight: What was given.
        steps: What would be bent; channels come second in its shape.

    Returns:
        True if it is one number, or one a channel, of the same dtype and device.
    """
    fits = isinstance(weight, Tensor) and weight.dim() == 1 and len(weight) in (1, steps.shape[1])
    return fits and weight.dtype == steps.dtype and weight.device == steps.device


def _binary(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) != 2 or "out" in kwargs or not all(isinstance(arg, (Tensor, int, float)) for arg in args):
        return NotImplemented
    name = func.__name__
    in_place = name in CHANGES_FIRST or (name.endswith("_") and not name.endswith("__"))
    if in_place and not isinstance(args[0], MarkedTensor):
        return NotImplemented
    main = next((arg for arg in args if isinstance(arg, MarkedTensor) and _is_spatial(arg)), None)
    if main is None:
        return NotImplemented
    shape = torch.broadcast_shapes(*(arg.shape for arg in args if isinstance(arg, Tensor)))
    if in_place and shape != args[0].shape:
        return NotImplemented
    if any(
        isinstance(a, MarkedTensor)
        and (a.dim() != len(shape) or a.shape[0] != shape[0] or a.shape[2:] != shape[2:])
        for a in args
    ):
        return NotImplemented
    operands = read_operands(args)
    sparse = [operand for operand in operands if isinstance(operand, SparseActivation)]
    partial = any(operand.partial for operand in sparse)
    plain_name = name[3:-2] if name in CHANGES_FIRST else name.strip("_")
    both = combined(plain_name, sparse) if not kwargs else None
    if both is not None:
        return _give(call, args[0], both, in_place=in_place)
    sites, operands = aligned(operands)
    laid_out = all(operand.laid_out for operand in operands if isinstance(operand, SparseActivation))
    plain = [operand.values if isinstance(operand, SparseActivation) else operand for operand in operands]
    if in_place:
        func = getattr(Tensor, name.replace("__i", "__") if name.startswith("__") else name.rstrip("_"))
    rows = func(*plain, **kwargs)
    rows = rows.to(args[0].dtype) if in_place else rows
    return _give(call, args[0], SparseActivation(sites, rows, partial, laid_out=laid_out), in_place=in_place)


def _same(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, _ = _first(args, kwargs)
    if not isinstance(x, MarkedTensor):
        return NotImplemented
    name = func.__name__
    if name in ("detach_", "requires_grad_") or (
        name == "contiguous" and x.is_contiguous(*args[1:], **kwargs)
    ):
        return x
    if name in ("clone", "contiguous"):
        # A dense payload may be written to by others, see `MarkedTensor.settle`.
        return call.wrap(x.payload.clone() if isinstance(x.payload, Tensor) else x.payload)
    return call.wrap(x.payload, view_of=x)


def _cast(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run .to(), .float() and the like."""
    x = args[0]
    if not _is_spatial(x) or not isinstance(x.payload, SparseActivation):
        return NotImplemented
    rest = [a.dtype if isinstance(a, MarkedTensor) else a for a in args[1:]]
    options = {k: v for k, v in kwargs.items() if k != "memory_format"}
    # It takes a tensor only.
    func = Tensor.to if func is Tensor.type_as else func
    values = func(x.payload.values, *rest, **options)
    if values is x.payload.values:
        return x
    if not values.is_floating_point() or values.device != x.device:
        return NotImplemented
    return call.wrap(x.payload.with_values(values))


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    return (args[0], args[1:]) if args else (kwargs.get("input"), ())


def _is_spatial(x: Any) -> bool:
    return isinstance(x, MarkedTensor) and x.dim() in (4, 5) and x.is_floating_point()


def _give(call: ModelCall, x: Any, activation: SparseActivation, *, in_place: bool) -> MarkedTensor:
    if in_place:
        x.replace(activation)
        return x
    return call.wrap(activation)


def _all_named(names: list[str], *, in_place: bool = False) -> list[Any]:
    functions = [func for name in names for func in named_functions(name)]
    if in_place:
        functions += [
            func for name in names if not name.startswith("_") for func in named_functions(name + "_")
        ]
    return functions


HANDLERS = {
    **dict.fromkeys(_all_named(UNARY, in_place=True), _unary),
    **dict.fromkeys(_all_named(DROPOUT, in_place=True), _dropout),
    **dict.fromkeys(_all_named(BINARY, in_place=True), _binary),
    **dict.fromkeys(_all_named(CHANGES_FIRST), _binary),
    **dict.fromkeys(_all_named(["prelu"]), _prelu),
    **dict.fromkeys(_all_named(SAME), _same),
    **dict.fromkeys(
        [Tensor.to, Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.double, Tensor.type_as], _cast
    ),
    F.prelu: _prelu,
}
