"""Normalization and averages: statistics over space are taken over the real values only.

One NaN would otherwise erase the sample. BatchNorm with running statistics is point-wise and keeps NaN as it
is.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.handlers.arguments import REQUIRED, bind, named_functions
from nansparse.interception import Handler, ModelCall
from nansparse.marked import MarkedTensor

_BATCH = [("input", REQUIRED), ("running_mean", REQUIRED), ("running_var", REQUIRED), ("weight", None)]
_BATCH = [*_BATCH, ("bias", None), ("training", False), ("momentum", 0.1), ("eps", 1e-5)]
_INSTANCE = [
    ("input", REQUIRED),
    ("running_mean", None),
    ("running_var", None),
    ("weight", None),
    ("bias", None),
]
_INSTANCE = [*_INSTANCE, ("use_input_stats", True), ("momentum", 0.1), ("eps", 1e-5)]
_GROUP = [("input", REQUIRED), ("num_groups", REQUIRED), ("weight", None), ("bias", None), ("eps", 1e-5)]
_LAYER = [
    ("input", REQUIRED),
    ("normalized_shape", REQUIRED),
    ("weight", None),
    ("bias", None),
    ("eps", 1e-5),
]


def as_image(rows: Tensor) -> Tensor:
    """View rows (P, C) as (1, C, P, 1), channels last: torch's vectorised layout for channel-wise work."""
    return rows.view(1, len(rows), 1, -1).permute(0, 3, 1, 2)


def as_rows(image: Tensor) -> Tensor:
    """View an image (1, C, P, 1) as rows (P, C)."""
    return image.permute(0, 2, 3, 1).reshape(image.shape[2], image.shape[1])


def _batch_norm(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind(_BATCH, args, kwargs)
    if bound is None or bound["input"].dim() not in (4, 5):
        return NotImplemented
    activation = bound["input"].sparse()
    mean, variance, weight, bias = (bound[n] for n in ("running_mean", "running_var", "weight", "bias"))
    if not len(activation.rows):
        return call.wrap(activation)
    if bound["training"] or mean is None:
        everything = torch.zeros_like(activation.sites.numbers)
        rows = _normalized(activation, everything, 1, activation.channels, bound["eps"])
        return call.wrap(activation.with_rows(_affine(rows, weight, bias)))
    rows = as_rows(
        func(as_image(activation.rows), mean, variance, weight, bias, False, bound["momentum"], bound["eps"])
    )
    return call.wrap(activation.with_rows(rows))


def _instance_norm(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    del func
    bound = bind(_INSTANCE, args, kwargs)
    if bound is None or bound["input"].dim() not in (4, 5):
        return NotImplemented
    if not bound["use_input_stats"]:
        names = ("input", "running_mean", "running_var", "weight", "bias")
        options = {"training": False, "eps": bound["eps"]}
        return _batch_norm(call, F.batch_norm, tuple(bound[n] for n in names), options)
    activation = bound["input"].sparse()
    return _per_sample(call, activation, activation.channels, bound)


def _group_norm(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    del func
    bound = bind(_GROUP, args, kwargs)
    if bound is None or bound["input"].dim() not in (4, 5):
        return NotImplemented
    return _per_sample(call, bound["input"].sparse(), bound["num_groups"], bound)


def _per_sample(
    call: ModelCall, activation: SparseActivation, groups: int, bound: dict[str, Any]
) -> MarkedTensor:
    sites = activation.sites
    sample = torch.div(sites.numbers, max(sites.total // max(sites.batch, 1), 1), rounding_mode="floor")
    rows = _normalized(activation, sample, sites.batch, groups, bound["eps"])
    return call.wrap(activation.with_rows(_affine(rows, bound["weight"], bound["bias"])))


def _normalized(
    activation: SparseActivation, sample: Tensor, samples: int, groups: int, eps: float
) -> Tensor:
    """Normalize per sample and channel group over the real values.

    Args:
        activation: The input.
        sample: int64 (P,), the sample each row belongs to.
        samples: Number of samples.
        groups: Number of channel groups.
        eps: Added to the variance.

    Returns:
        Rows (P, C).
    """
    rows = activation.rows
    wide = torch.promote_types(rows.dtype, torch.float32)
    values = rows.to(wide).unflatten(1, (groups, -1))
    real = ~values.isnan()
    zeroed = values.nan_to_num(0.0, torch.inf, -torch.inf) if activation.partial else values

    def summed(cells: Tensor) -> Tensor:
        return cells.new_zeros(samples, groups).index_add_(0, sample, cells.sum(2))

    count = summed(real.to(wide)).clamp(min=1)
    mean = summed(zeroed) / count
    centred = values - mean[sample][..., None]
    squares = centred.square()
    squares = squares.nan_to_num(0.0, torch.inf) if activation.partial else squares
    variance = summed(squares) / count
    return (centred * (variance + eps).rsqrt()[sample][..., None]).flatten(1).to(rows.dtype)


def _affine(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    rows = rows if weight is None else rows * weight
    return rows if bias is None else rows + bias


def _layer_norm(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind(_LAYER, args, kwargs)
    if bound is None:
        return NotImplemented
    with call.recorded(func.__name__) as facts:
        facts.update(engine="dense", densified=1)
        x = bound["input"].dense()
        axes = tuple(range(x.dim() - len(bound["normalized_shape"]), x.dim()))
        mean = x.nanmean(axes, keepdim=True)
        variance = (x - mean).square().nanmean(axes, keepdim=True)
        out = _affine((x - mean) * (variance + bound["eps"]).rsqrt(), bound["weight"], bound["bias"])
    return call.mark(out)


def _average(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run adaptive average pooling: the mean of a window's real values, NaN where it has none."""
    with call.recorded(func.__name__) as facts:
        facts.update(engine="dense", densified=1)
        x = args[0] if args else kwargs["input"]
        rest = {k: v for k, v in kwargs.items() if k != "input"}
        dense = x.dense()
        nan = dense.isnan()
        share = func((~nan).to(dense.dtype), *args[1:], **rest)
        out = func(dense.masked_fill(nan, 0.0), *args[1:], **rest) / share
    return call.mark(out)


def _average_window(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run average pooling: global if the window is the grid, else NaN spreads as IEEE has it."""
    names = [("input", REQUIRED), ("kernel_size", REQUIRED), ("stride", None), ("padding", 0)]
    bound = bind(
        [*names, ("ceil_mode", False), ("count_include_pad", True), ("divisor_override", None)], args, kwargs
    )
    if (
        bound is None
        or bound["divisor_override"] is not None
        or bound["padding"] not in (0, (0, 0), (0, 0, 0))
    ):
        return NotImplemented
    rank = 2 if "2d" in func.__name__ else 3
    grid, kernel = tuple(bound["input"].shape[-rank:]), bound["kernel_size"]
    kernel = (kernel,) * len(grid) if isinstance(kernel, int) else tuple(kernel)
    return _average(call, func, args, kwargs) if kernel == grid else NotImplemented


def _mean(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Average the real values over space or tokens; a mean over channels spreads NaN as IEEE has it."""
    bound = bind([("input", REQUIRED), ("dim", None), ("keepdim", False), ("dtype", None)], args, kwargs)
    if bound is None or bound["dim"] is None or bound["dtype"] is not None:
        return NotImplemented
    x, axes = bound["input"], bound["dim"]
    axes = [axes] if isinstance(axes, int) else list(axes)
    first = 2 if x.dim() in (4, 5) else 1
    if not axes or x.dim() < 3 or any(axis % x.dim() < first for axis in axes):
        return NotImplemented
    with call.recorded(func.__name__) as facts:
        facts.update(engine="dense", densified=1)
        out = x.dense().nanmean(axes, keepdim=bound["keepdim"])
    return call.mark(out)


HANDLERS: dict[Any, Handler] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    **dict.fromkeys((F.adaptive_avg_pool2d, F.adaptive_avg_pool3d), _average),
    **dict.fromkeys((*named_functions("avg_pool2d"), *named_functions("avg_pool3d")), _average_window),
    **dict.fromkeys((torch.mean, Tensor.mean), _mean),
}
