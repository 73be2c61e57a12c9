"""Putting together and taking apart along channels, and what acts over the channels of each site."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled import kernels_for
from nansparse.handlers.arguments import REQUIRED, bind
from nansparse.marked import MarkedTensor
from nansparse.model_call import Handler, ModelCall
from nansparse.pool import empty_rows
from nansparse.sampling import picked
from nansparse.sites import Sites


def _cat(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Join along channels: the sites that any part has, NaN where a part has none."""
    del func
    bound = bind([("tensors", REQUIRED), ("dim", 0)], args, {k: v for k, v in kwargs.items() if k != "axis"})
    if bound is None or "out" in kwargs:
        return NotImplemented
    parts, dim = list(bound["tensors"]), kwargs.get("axis", bound["dim"])
    if not all(isinstance(p, Tensor) and p.dim() in (4, 5) and p.is_floating_point() for p in parts):
        return NotImplemented
    if dim not in (1, 1 - parts[0].dim()) or len({(p.shape[0], *p.shape[2:]) for p in parts}) != 1:
        return NotImplemented
    if len({p.dtype for p in parts}) != 1:
        return NotImplemented
    activations = [p.sparse() if isinstance(p, MarkedTensor) else _complete(p) for p in parts]
    sites = activations[0].sites
    if all(a.sites is sites and a.laid_out for a in activations):
        values = torch.cat([a.values for a in activations], 1)
        partial = any(a.partial for a in activations)
        return call.wrap(SparseActivation(sites, values, partial, laid_out=True))
    for activation in activations[1:]:
        sites = sites.join(activation.sites)
    shared = all(a.sites is sites or len(a.sites) == len(sites) for a in activations)
    rows = _joined(activations, sites)
    return call.wrap(SparseActivation(sites, rows, not shared or any(a.partial for a in activations)))


def _complete(x: Tensor) -> SparseActivation:
    sites = Sites(None, x.shape[0], x.shape[2:], x.device)
    return SparseActivation(sites, x.movedim(1, -1).reshape(-1, x.shape[1]), partial=False)


def _joined(activations: list[SparseActivation], sites: Sites) -> Tensor:
    """Give the rows of all activations at some sites side by side, NaN where one has none."""
    first = activations[0].rows
    kernels = kernels_for(first)
    # Site numbers that int32 does not hold are left to torch, as in `Sites.row_of`.
    if kernels is None or sites.total >= torch.iinfo(torch.int32).max - 2:
        return torch.cat([_spread(a, sites) for a in activations], 1)
    # Where a part has all the sites, nothing has to be looked up.
    in_order = torch.empty(0, dtype=torch.int32)
    out = empty_rows(first, len(sites), sum(a.channels for a in activations))
    start = 0
    for a in activations:
        row_of = in_order if len(a.sites) == len(sites) else a.sites.row_of.flatten()
        kernels.run(kernels.cells.write_channels, a.rows, row_of, sites.places, start, into=(out,))
        start += a.channels
    return out


def _spread(activation: SparseActivation, sites: Sites) -> Tensor:
    """Give the rows of an activation at more sites, NaN where it has none."""
    if len(activation.sites) == len(sites):
        return activation.rows
    rows = activation.rows.new_full((len(sites), activation.channels), torch.nan)
    at = activation.sites.numbers if sites.is_complete else sites.rows_at(activation.sites.numbers)
    return rows.index_copy_(0, at.long(), activation.rows)


def _chunk(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Split along channels."""
    bound = bind([("input", REQUIRED), ("size", REQUIRED), ("dim", 0)], args, _renamed(kwargs))
    if (
        bound is None
        or bound["dim"] not in (1, 1 - bound["input"].dim())
        or bound["input"].dim() not in (4, 5)
    ):
        return NotImplemented
    activation = bound["input"].sparse()
    parts = func(activation.rows, bound["size"], 1)
    return tuple(call.wrap(activation.narrowed(part), view_of=bound["input"]) for part in parts)


def _renamed(kwargs: dict[str, Any]) -> dict[str, Any]:
    sizes = ("chunks", "split_size", "split_size_or_sections")
    return {"size" if key in sizes else key: value for key, value in kwargs.items()}


def _getitem(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Take slices of channels and of space (a crop); any other index needs the dense tensor."""
    del func, kwargs
    x, index = args
    if not isinstance(x, MarkedTensor) or x.dim() not in (4, 5) or not x.is_floating_point():
        return NotImplemented
    slices = _slices(index, x.dim())
    if slices is None or slices[0] != slice(None):
        return NotImplemented
    activation = x.sparse()
    sizes = zip(activation.sites.grid, slices[2:], strict=True)
    cells = [torch.arange(size, device=x.device)[part] for size, part in sizes]
    cropped = picked(activation, cells)
    return call.wrap(cropped.narrowed(cropped.rows[:, slices[1]]), view_of=x)


def _slices(index: Any, rank: int) -> list[slice] | None:
    """Write an index as one slice an axis; None if it is more than that."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if not all(isinstance(part, slice) or part is Ellipsis for part in parts) or parts.count(Ellipsis) > 1:
        return None
    if Ellipsis not in parts:
        parts.append(Ellipsis)
    at = parts.index(Ellipsis)
    return [*parts[:at], *[slice(None)] * (rank + 1 - len(parts)), *parts[at + 1 :]]


def _softmax(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run softmax or log_softmax over the channels of each site."""
    x = args[0] if args else kwargs.get("input")
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if not isinstance(x, MarkedTensor) or x.dim() not in (4, 5) or dim not in (1, 1 - x.dim()):
        return NotImplemented
    # torch.softmax(x, dim, dtype), but F.softmax(x, dim, stack level, dtype).
    dtype = args[-1] if len(args) > 2 and isinstance(args[-1], torch.dtype) else kwargs.get("dtype")
    activation = x.sparse()
    rows = func(activation.rows, dim=1, dtype=dtype)
    # One NaN makes a whole site NaN.
    return call.wrap(activation.narrowed(rows))


def _argmax(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Find the channel with the largest real value; 0 where a site has none (torch names the NaN channel)."""
    bound = bind([("input", REQUIRED), ("dim", None), ("keepdim", False)], args, kwargs)
    if (
        bound is None
        or bound["input"].dim() not in (4, 5)
        or bound["dim"] not in (1, 1 - bound["input"].dim())
    ):
        return NotImplemented
    activation = bound["input"].sparse()
    rows = (
        activation.rows.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        if activation.partial
        else activation.rows
    )
    labels = func(rows, dim=1) if len(rows) else rows.new_zeros(0, dtype=torch.int64)
    sites = activation.sites
    out = labels
    if not sites.is_complete:
        out = labels.new_zeros(sites.total).index_copy_(0, sites.numbers, labels)
    out = out.view(sites.batch, *sites.grid)
    return out[:, None] if bound["keepdim"] else out


HANDLERS: dict[Any, Handler] = {
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
    **dict.fromkeys((torch.chunk, Tensor.chunk, torch.split, Tensor.split), _chunk),
    **dict.fromkeys((torch.softmax, Tensor.softmax, F.softmax), _softmax),
    **dict.fromkeys((torch.log_softmax, Tensor.log_softmax, F.log_softmax), _softmax),
    **dict.fromkeys((torch.argmax, Tensor.argmax), _argmax),
    Tensor.__getitem__: _getitem,
}
