"""Normalization: statistics over space are taken over the real values only.

One NaN would otherwise erase the sample. That is not what the network was trained on, where background
counted too: `statistics_nan` of the policy counts every NaN cell as a number instead. BatchNorm with running
statistics is point-wise and keeps NaN as it is.
"""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled import Kernels
from nansparse.fused import Fused
from nansparse.handlers.arguments import REQUIRED, bind
from nansparse.handlers.statistics import PIECE, part_statistics
from nansparse.marked import MarkedTensor
from nansparse.model_call import Handler, ModelCall
from nansparse.pending import Pending, steps_for
from nansparse.strides import as_image, as_rows

BATCH_NORM = [("input", REQUIRED), ("running_mean", REQUIRED), ("running_var", REQUIRED), ("weight", None)]
BATCH_NORM = [*BATCH_NORM, ("bias", None), ("training", False), ("momentum", 0.1), ("eps", 1e-5)]
INSTANCE_NORM = [
    ("input", REQUIRED),
    ("running_mean", None),
    ("running_var", None),
    ("weight", None),
    ("bias", None),
]
INSTANCE_NORM = [*INSTANCE_NORM, ("use_input_stats", True), ("momentum", 0.1), ("eps", 1e-5)]
GROUP_NORM = [("input", REQUIRED), ("num_groups", REQUIRED), ("weight", None), ("bias", None), ("eps", 1e-5)]
LAYER_NORM = [
    ("input", REQUIRED),
    ("normalized_shape", REQUIRED),
    ("weight", None),
    ("bias", None),
    ("eps", 1e-5),
]


BUFFERS = ("running_mean", "running_var", "weight", "bias")
REAL_ONLY = "statistics over the real values only"


def _batch_norm(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind(BATCH_NORM, args, kwargs)
    if bound is None or bound["input"].dim() not in (4, 5):
        return NotImplemented
    activation = bound["input"].sparse()
    mean, variance, weight, bias = (bound[n] for n in BUFFERS)
    if not len(activation.sites):
        return call.wrap(activation)
    if bound["training"] or mean is None:
        ends = [0, len(activation.sites)]
        return _over_space(call, func.__name__, activation, ends, activation.channels, bound)
    kernels = steps_for(activation)
    steps = None if kernels is None else pending_norm(kernels, activation.values, bound)
    if steps is not None:
        return call.wrap(activation.with_values(steps))
    values = activation.values
    # torch's vectorised layout for channel-wise work.
    image = as_image(values, 1, (len(values), 1))
    values = as_rows(func(image, mean, variance, weight, bias, False, bound["momentum"], bound["eps"]))
    return call.wrap(activation.with_values(values))


def pending_norm(kernels: Kernels | Fused, rows: Tensor, bound: dict[str, Any]) -> Pending | None:
    """Put batch norm with running statistics off.

    Args:
        kernels: What will do it.
        rows: (P, C).
        bound: The arguments of `torch.nn.functional.batch_norm` by name.

    Returns:
        The step; None where the loops do not take what is given for the channels.
    """
    if not all(_fits(bound[name], rows) for name in BUFFERS if bound[name] is not None):
        return None
    mean, factor = bound["running_mean"].detach(), (bound["running_var"].detach() + bound["eps"]).rsqrt_()
    return _scaled(kernels, rows, mean[None], factor[None], torch.tensor([0, len(rows)]), bound)


def _instance_norm(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind(INSTANCE_NORM, args, kwargs)
    if bound is None or bound["input"].dim() not in (4, 5):
        return NotImplemented
    if not bound["use_input_stats"]:
        names = ("input", "running_mean", "running_var", "weight", "bias")
        options = {"training": False, "eps": bound["eps"]}
        return _batch_norm(call, F.batch_norm, tuple(bound[n] for n in names), options)
    activation = bound["input"].sparse()
    return _per_sample(call, func.__name__, activation, activation.channels, bound)


def _group_norm(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind(GROUP_NORM, args, kwargs)
    if bound is None or bound["input"].dim() not in (4, 5):
        return NotImplemented
    return _per_sample(call, func.__name__, bound["input"].sparse(), bound["num_groups"], bound)


def _per_sample(
    call: ModelCall, name: str, activation: SparseActivation, groups: int, bound: dict[str, Any]
) -> MarkedTensor:
    return _over_space(call, name, activation, activation.sites.ends, groups, bound)


def _over_space(
    call: ModelCall,
    name: str,
    activation: SparseActivation,
    ends: list[int],
    groups: int,
    bound: dict[str, Any],
) -> MarkedTensor:
    """Normalize rows with statistics per part and channel group; note that they are not the usual ones."""
    nan = call.policy.statistics_nan
    with call.recorded(name) as facts:
        facts.update(engine="rows", note=REAL_ONLY if isinstance(nan, str) else f"NaN counted as {nan:g}")
        wide = torch.promote_types(activation.dtype, torch.float32)
        rows, kernels = activation.rows, steps_for(activation)
        # Rows are sorted by sample, so that each part is a piece of memory.
        cells = activation.sites.total // max(len(ends) - 1, 1)
        parts = [rows[start:end] for start, end in itertools.pairwise(ends)]
        found = [
            part_statistics(part.to(wide), cells, groups, activation.partial, nan, bound["eps"])
            for part in parts
        ]
        if kernels is not None and all(
            _fits(bound[n], rows) for n in ("weight", "bias") if bound[n] is not None
        ):
            mean, factor = (torch.stack(lines) for lines in zip(*found, strict=True))
            return call.wrap(
                activation.with_rows(_scaled(kernels, rows, mean, factor, torch.tensor(ends), bound))
            )
        out = torch.empty_like(rows)
        for start, part, (mean, factor) in zip(ends[:-1], parts, found, strict=True):
            for at in range(0, len(part), PIECE):
                piece = (part[at : at + PIECE] - mean).mul_(factor)
                out[start + at : start + at + len(piece)] = _affine(piece, bound["weight"], bound["bias"])
        return call.wrap(activation.with_rows(out))


def _fits(x: Tensor, rows: Tensor) -> bool:
    """Say whether one number per channel is given as the loops need it."""
    return x.dtype == rows.dtype and x.device == rows.device and x.shape == rows.shape[1:]


def _scaled(
    kernels: Kernels | Fused, rows: Tensor, mean: Tensor, factor: Tensor, ends: Tensor, bound: dict[str, Any]
) -> Pending:
    """Put off (rows - mean) * factor * weight + bias; mean and factor (S, C), one line a part of the rows."""
    scale = factor if bound["weight"] is None else factor * bound["weight"].detach()
    bias = mean.new_zeros(()) if bound["bias"] is None else bound["bias"].detach()
    shift = torch.addcmul(bias, mean, scale, value=-1)
    return Pending.scaled(kernels, rows, scale, shift, ends)


def _affine(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    rows = rows if weight is None else rows * weight
    return rows if bias is None else rows + bias


def _layer_norm(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = bind(LAYER_NORM, args, kwargs)
    if bound is None:
        return NotImplemented
    with call.recorded(func.__name__) as facts:
        facts.update(engine="dense", densified=1)
        x = bound["input"].dense()
        axes = tuple(range(x.dim() - len(bound["normalized_shape"]), x.dim()))
        level = call.policy.statistics_nan
        counted = x if isinstance(level, str) else x.masked_fill(x.isnan(), level)
        mean = counted.nanmean(axes, keepdim=True)
        variance = (counted - mean).square().nanmean(axes, keepdim=True)
        out = _affine((x - mean) * (variance + bound["eps"]).rsqrt(), bound["weight"], bound["bias"])
    return call.mark(out)


HANDLERS: dict[Any, Handler] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
}
