"""What operations on tensors without NaN do to their uniform regions (see `nansparse.uniform`).

Convolutions and pooling layers, which shrink a region, say so themselves.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.functional.pooling import pooling_windows
from nansparse.handlers.arguments import bind, named_functions
from nansparse.handlers.averages import WINDOW
from nansparse.handlers.pointwise import BINARY, CHANGES_FIRST, DROPOUT, UNARY
from nansparse.handlers.resampling import INTERPOLATE, PAD
from nansparse.interpolation import interpolation_reads
from nansparse.uniform import Uniform
from nansparse.uniform_regions import Rule, UniformRegions

_KEPT = ["contiguous", "clone", "detach", "alias"]
# One mean and factor for all sites of a channel in a sample.
_NORMS = [F.batch_norm, F.instance_norm, F.group_norm]


def _pointwise(regions: UniformRegions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Uniform | None:
    """Combine the regions of all tensors among the arguments that have a value for every site."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.dim() > 0]
    found = None
    for tensor in tensors:
        region = regions.of(tensor)
        if region is None:
            rank = max(t.dim() for t in tensors)
            if tensor.dim() == rank and all(size == 1 for size in tensor.shape[2:]):
                continue
            return None
        found = region if found is None else _common(found, region)
        if found is None:
            return None
    return found


def _common(first: Uniform, second: Uniform) -> Uniform | None:
    return first.meet(second) if first.mask.shape == second.mask.shape else None


def _first_only(regions: UniformRegions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Uniform | None:
    """Keep the region of the first argument; the others hold a number a channel."""
    return regions.of(args[0] if args else kwargs.get("input"))


def _dropout(regions: UniformRegions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Uniform | None:
    bound = bind([("input", None), ("p", 0.5), ("training", True), ("inplace", False)], args, kwargs)
    return None if bound is None or bound["training"] is not False else regions.of(bound["input"])


def _cat(regions: UniformRegions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Uniform | None:
    bound = bind([("tensors", None), ("dim", 0)], args, kwargs)
    if bound is None or bound["dim"] != 1 or not isinstance(bound["tensors"], (list, tuple)):
        return None
    return _pointwise(regions, tuple(bound["tensors"]), {})


def _pad(regions: UniformRegions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Uniform | None:
    """Widen a region's grid; what is added has nothing to do with it."""
    bound = bind(PAD, args, kwargs)
    region = None if bound is None else regions.of(bound["input"])
    if bound is None or region is None or bound["mode"] != "constant":
        return None
    pads = list(bound["pad"])
    # The period counts from the first cell of the grid.
    shifts = zip(pads[::2], reversed(region.period), strict=False)
    if len(pads) > 2 * len(region.period) or any(low % period for low, period in shifts):
        return None
    return Uniform(F.pad(region.mask, pads, value=False), region.period)


def _average(rank: int) -> Rule:
    def average(regions: UniformRegions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Uniform | None:
        bound = bind(WINDOW, args, kwargs)
        region = None if bound is None else regions.of(bound["input"])
        if bound is None or region is None or len(region.period) != rank:
            return None
        kernel, stride, padding = (bound[name] for name in ("kernel_size", "stride", "padding"))
        grid, ceil = region.mask.shape[1:], bound["ceil_mode"]
        return region.through(pooling_windows(grid, kernel, stride, padding, 1, ceil_mode=ceil))

    return average


def _interpolate(regions: UniformRegions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Uniform | None:
    """Find what reads the region only: weights sum to one, so that its value is that of the region."""
    bound = bind(INTERPOLATE, args, kwargs)
    region = None if bound is None else regions.of(bound["input"])
    reads = None if bound is None or region is None or region.classes > 1 else interpolation_reads(bound)
    return None if region is None or reads is None else region.read_by(reads[0], region.period)


def _all_named(names: list[str]) -> list[Any]:
    return [func for name in names for func in named_functions(name)]


RULES: dict[Any, Rule] = {
    **dict.fromkeys(_all_named([*UNARY, *(f"{name}_" for name in UNARY)]), _pointwise),
    **dict.fromkeys(_all_named([*BINARY, *(f"{name}_" for name in BINARY), *CHANGES_FIRST]), _pointwise),
    **dict.fromkeys([*_all_named(["prelu", *_KEPT]), *_NORMS], _first_only),
    **dict.fromkeys(_all_named([form for name in DROPOUT for form in (name, f"{name}_")]), _dropout),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), _cat),
    F.pad: _pad,
    **dict.fromkeys(_all_named(["avg_pool2d"]), _average(2)),
    **dict.fromkeys(_all_named(["avg_pool3d"]), _average(3)),
    F.interpolate: _interpolate,
}
