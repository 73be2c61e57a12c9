"""Convolutions, transposed convolutions and linear layers."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import registry
from nansparse.errors import InputError
from nansparse.execution import run_convolution
from nansparse.functional import nan_linear
from nansparse.functional.checks import check_activation, check_weight
from nansparse.handlers.arguments import REQUIRED, bind
from nansparse.handlers.repeated import convolve_once, fits_plainly
from nansparse.marked import MarkedTensor, densified
from nansparse.model_call import ModelCall
from nansparse.windows import Windows, convolution_windows, transposed_windows

_SHARED = [("input", REQUIRED), ("weight", REQUIRED), ("bias", None), ("stride", 1), ("padding", 0)]
_SIGNATURE = [*_SHARED, ("dilation", 1), ("groups", 1)]
_TRANSPOSED = [*_SHARED, ("output_padding", 0), ("groups", 1), ("dilation", 1)]


def _convolve(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run conv2d, conv3d and their transposed forms."""
    transposed = "transpose" in func.__name__
    bound = bind(_TRANSPOSED if transposed else _SIGNATURE, args, kwargs)
    if bound is None or isinstance(bound["weight"], MarkedTensor) or isinstance(bound["bias"], MarkedTensor):
        return NotImplemented
    x, weight = bound["input"], bound["weight"]
    if not isinstance(x, MarkedTensor):
        with call.recorded(func.__name__) as facts:
            plain = _convolve_plain(call, lambda: func(*args, **kwargs), func.__name__, bound, facts)
            facts.update(_dense_counts(x, weight, plain, bound["groups"], transposed=transposed))
        return plain
    if x.dim() == weight.dim() - 1:
        batched = SparseActivation.from_dense(x.dense()[None])
        with call.recorded(func.__name__) as facts:
            out = _run(call, batched, bound, facts, transposed=transposed)
        return call.mark(out.to_dense()[0])
    with call.recorded(func.__name__) as facts:
        out = _run(call, x.sparse(), bound, facts, transposed=transposed)
    return call.wrap(out)


def _convolve_plain(
    call: ModelCall, dense: Callable[[], Tensor], name: str, bound: dict[str, Any], facts: dict[str, Any]
) -> Tensor:
    """Run a convolution of a tensor without NaN, windows that repeat each other once."""
    x, weight, bias = bound["input"], bound["weight"], bound["bias"]
    region = call.uniform.of(x)
    if region is None or not fits_plainly(x, weight, bias, bound["groups"]):
        return dense()
    try:
        windows = _layer_windows(bound, x.shape[2:], transposed="transpose" in name)
    except InputError:  # torch says it in its own words
        return dense()
    convolution = Convolution(weight.detach(), bias, windows, bound["groups"], call.policy.threshold)
    repeats = region.through(windows)
    out = convolve_once(call, x, convolution, region, repeats, facts)
    out = dense() if out is None else out
    call.uniform.note(out, repeats)
    return out


def _run(
    call: ModelCall,
    activation: SparseActivation,
    bound: dict[str, Any],
    facts: dict[str, Any],
    *,
    transposed: bool,
) -> SparseActivation:
    """Run one convolution on a sparse activation and say what it did."""
    device = activation.device.type
    weight, bias = bound["weight"], bound["bias"]
    if torch.is_autocast_enabled(device) and activation.dtype != torch.float64:
        # The mode sits above autocast: do to the arguments what autocast does for a dense layer.
        dtype = torch.get_autocast_dtype(device)
        activation = activation.with_values(activation.values.to(dtype))
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    stand_in = torch.empty(activation.shape, dtype=activation.dtype, device="meta")
    check_activation(stand_in, "input")
    check_weight(stand_in, weight, bias, bound["groups"], transposed=transposed)
    windows = _layer_windows(bound, activation.sites.grid, transposed=transposed)
    convolution = Convolution(weight.detach(), bias, windows, bound["groups"], call.policy.threshold)
    with torch.autocast(device, enabled=False):
        out, engine, choice = run_convolution(
            registry,
            call.policy.engine,
            activation,
            convolution,
            layer=call.layer(),
            faults=call.record.faults,
        )
    counts = _counts(out, convolution)
    facts.update(engine=engine.name, note=choice.note, forecast=choice.forecast, **counts)
    return out


def _layer_windows(bound: dict[str, Any], grid: Sequence[int], *, transposed: bool) -> Windows:
    options = [bound["stride"], bound["padding"]]
    options += [bound["output_padding"]] if transposed else []
    options = [tuple(o) if isinstance(o, (list, tuple)) else o for o in (*options, bound["dilation"])]
    return _windows(transposed, tuple(grid), tuple(bound["weight"].shape[2:]), *options)


@lru_cache(maxsize=256)
def _windows(transposed: bool, *geometry: Any) -> Windows:
    """Lay out the windows of a layer, once for all its calls."""
    return (transposed_windows if transposed else convolution_windows)(*geometry)


def _counts(out: SparseActivation, convolution: Convolution) -> dict[str, int]:
    """Count windows and multiply-adds, all and skipped ones."""
    groups, windows = convolution.groups, convolution.windows
    total = out.sites.total * groups
    if groups == 1 or not out.partial:
        kept = len(out.sites) * groups
    else:
        kept = int((~out.rows.unflatten(1, (groups, -1))[:, :, 0].isnan()).sum())
    per_window = convolution.weight.numel() // groups
    if not windows.transposed:
        return {
            "windows": total,
            "windows_skipped": total - kept,
            "macs": total * per_window,
            "macs_skipped": (total - kept) * per_window,
        }
    # A transposed window has as many cells as its place between the strides allows.
    cells = windows.cells().to(out.device)
    share = per_window // windows.volume
    every = int(cells.sum()) * out.sites.batch * groups
    if groups > 1:
        real = ~out.rows.unflatten(1, (groups, -1))[:, :, 0].isnan()
        read = int((real.sum(1) * cells.flatten()[out.sites.numbers % cells.numel()]).sum())
    else:
        read = int(cells.flatten()[out.sites.numbers % cells.numel()].sum())
    return {
        "windows": total,
        "windows_skipped": total - kept,
        "macs": every * share,
        "macs_skipped": (every - read) * share,
    }


def _dense_counts(x: Tensor, weight: Tensor, out: Tensor, groups: int, *, transposed: bool) -> dict[str, int]:
    per_window = weight.numel() // groups
    places = out.numel() // max(out.shape[-weight.dim() + 1], 1)
    if not transposed:
        return {"windows": places * groups, "macs": places * groups * per_window}
    return {"windows": places * groups, "macs": x.numel() // max(weight.shape[0], 1) * weight.numel()}


def _linear(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a linear layer: the window is the feature vector."""
    bound = bind([("input", REQUIRED), ("weight", REQUIRED), ("bias", None)], args, kwargs)
    if bound is None or isinstance(bound["weight"], MarkedTensor) or isinstance(bound["bias"], MarkedTensor):
        return NotImplemented
    x, weight, bias = bound["input"], bound["weight"], bound["bias"]
    with call.recorded("linear") as facts:
        vectors = math.prod(x.shape[:-1])
        facts.update(windows=vectors, macs=vectors * weight.numel())
        if not isinstance(x, MarkedTensor):
            return func(x, weight, bias)
        dense, device = densified(x), x.device.type
        if torch.is_autocast_enabled(device) and dense.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device)
            dense, weight = dense.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        with torch.autocast(device, enabled=False):
            out = nan_linear(dense, weight, bias, threshold=call.policy.threshold)
        skipped = int(out[..., 0].isnan().sum()) if out.shape[-1] else 0
        facts.update(engine="dense", windows_skipped=skipped, macs_skipped=skipped * weight.numel())
    return call.mark(out)


HANDLERS = {
    **dict.fromkeys((F.conv2d, F.conv3d, F.conv_transpose2d, F.conv_transpose3d), _convolve),
    F.linear: _linear,
}
