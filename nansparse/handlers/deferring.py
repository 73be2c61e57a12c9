"""Which steps on tensors without NaN are put off (see `nansparse.deferred`): those behind a batch norm."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled import Kernels, kernels_for
from nansparse.deferred import DeferredTensor, settled
from nansparse.handlers.arguments import bind, named_functions
from nansparse.handlers.normalization import BATCH_NORM, BUFFERS, pending_norm
from nansparse.handlers.pointwise import DROPOUT, is_slope
from nansparse.pending import OPERATIONS, Pending
from nansparse.sites import Sites

# Smaller tensors are done before the steps are noted.
LEAST_CELLS = 1 << 20


def _normalize(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x: Any = args[0] if args else kwargs.get("input")
    # Most calls of small networks end here.
    if type(x) not in (Tensor, DeferredTensor) or x.numel() < LEAST_CELLS:
        return NotImplemented
    bound = bind(BATCH_NORM, args, kwargs)
    if bound is None or bound["training"] or any(bound[name] is None for name in BUFFERS[:2]):
        return NotImplemented
    rows = image_rows(x)
    if rows is None or not isinstance(bound["momentum"], float) or not bound["eps"] > 0:
        return NotImplemented
    kernels = kernels_for(rows)
    if kernels is None or not _gives_the_same_bits(kernels):
        return NotImplemented
    steps = pending_norm(kernels, rows, bound)
    return NotImplemented if steps is None else _deferred(x, steps.reading(rows))


def _combine(name: str) -> Callable[..., Any]:
    def combine(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) != 2 or kwargs or args[0] is args[1]:
            return NotImplemented
        first, second = args
        if _scaled(first) is None and name != "sub":
            first, second = second, first
        steps = _scaled(first)
        if steps is None or not isinstance(second, Tensor) or first.shape != second.shape:
            return NotImplemented
        other = image_rows(second)
        if other is None:
            return NotImplemented
        nowhere = other.new_empty(0, dtype=torch.int64)
        steps = steps.combined(name, other, len(other), nowhere, nowhere)
        return _deferred(first, steps.reading(other))

    return combine


def _relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind([("input", None), ("inplace", False)], args, kwargs)
    return NotImplemented if bound is None else _bent(bound["input"], None, in_place=bound["inplace"])


def _leaky_relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind([("input", None), ("negative_slope", 0.01), ("inplace", False)], args, kwargs)
    if bound is None or not isinstance(bound["input"], DeferredTensor):
        return NotImplemented
    slope = torch.full((bound["input"].shape[1],), float(bound["negative_slope"]), dtype=torch.float32)
    return _bent(bound["input"], slope, in_place=bound["inplace"])


def _prelu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind([("input", None), ("weight", None)], args, kwargs)
    if bound is None or not isinstance(bound["input"], DeferredTensor):
        return NotImplemented
    x, weight = bound["input"], bound["weight"]
    if type(weight) not in (Tensor, torch.nn.Parameter) or not is_slope(weight, x):
        return NotImplemented
    return _bent(x, weight.detach().expand(x.shape[1]).clone(), in_place=False)


def _relu_(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return _bent(args[0], None, in_place=True) if len(args) == 1 and not kwargs else NotImplemented


def _dropout(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Hand the tensor on, where nothing is dropped."""
    bound = bind([("input", None), ("p", 0.5), ("training", True), ("inplace", False)], args, kwargs)
    off = bound is not None and bound["training"] is False and 0 <= bound["p"] <= 1
    return bound["input"] if bound is not None and off else NotImplemented


def _bent(x: Any, slope: Tensor | None, *, in_place: bool) -> Any:
    steps = x.activation.pending if isinstance(x, DeferredTensor) else None
    if steps is None or steps.is_bent:
        return NotImplemented
    result = _deferred(x, steps.bent(slope, x.activation))
    if in_place:
        x.activation = result.activation
        return x
    return result


def _scaled(x: Any) -> Pending | None:
    """Give the steps of a tensor that can still be combined with another."""
    steps = x.activation.pending if isinstance(x, DeferredTensor) else None
    return None if steps is None or steps.is_combined else steps


def image_rows(x: Any) -> Tensor | None:
    """View an image on the CPU as rows.

    Args:
        x: Anything.

    Returns:
        (N * grid, C) of (N, C, *grid); None where that takes a copy, or for anything but float32.
    """
    x = settled(x)
    if type(x) is not Tensor or x.dim() not in (4, 5) or x.device.type != "cpu" or x.dtype != torch.float32:
        return None
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    # What is both says nothing: a dense run would keep the other layout.
    if not x.is_contiguous(memory_format=layout) or x.is_contiguous():
        return None
    return x.detach().movedim(1, -1).reshape(-1, x.shape[1])


def _deferred(like: Tensor, steps: Pending) -> DeferredTensor:
    sites = Sites(None, like.shape[0], like.shape[2:], like.device)
    return DeferredTensor(SparseActivation(sites, steps, partial=False))


@cache
def _gives_the_same_bits(kernels: Kernels) -> bool:
    """Try once whether batch norm is rounded here as torch does it, which processors and builds decide."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 19, 8, 8, generator=draw, dtype=torch.float32).to(memory_format=torch.channels_last)
    mean, variance, weight, bias = torch.rand(4, 19, generator=draw, dtype=torch.float32)
    given = {"running_mean": mean, "running_var": variance, "weight": weight, "bias": bias, "eps": 1e-5}
    steps = pending_norm(kernels, x.movedim(1, -1).reshape(-1, 19), given)
    if steps is None:
        return False
    expected = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=1e-5)
    return torch.equal(_deferred(x, steps).settled(), expected)


STEPS: dict[Any, Callable[..., Any]] = {
    F.batch_norm: _normalize,
    **{func: _combine(name) for name in OPERATIONS for func in named_functions(name)},
    **{func: _combine(name) for name in ("add", "sub", "mul") for func in named_functions(f"__{name}__")},
    **dict.fromkeys(named_functions("relu"), _relu),
    **dict.fromkeys(named_functions("relu_"), _relu_),
    **dict.fromkeys(named_functions("leaky_relu"), _leaky_relu),
    **dict.fromkeys(named_functions("prelu"), _prelu),
    **{func: _dropout for name in DROPOUT for func in named_functions(name)},
}
