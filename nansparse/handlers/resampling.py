"""Interpolation and padding: every output reads fixed cells of the grid, and NaN spreads as IEEE has it."""

from typing import Any

import torch
import torch.nn.functional as F

from nansparse.handlers.arguments import REQUIRED, bind
from nansparse.interpolation import interpolation_reads
from nansparse.marked import MarkedTensor
from nansparse.model_call import Handler, ModelCall
from nansparse.sampling import OUTSIDE, blended, picked

INTERPOLATE = [("input", REQUIRED), ("size", None), ("scale_factor", None), ("mode", "nearest")]
INTERPOLATE = [
    *INTERPOLATE,
    ("align_corners", None),
    ("recompute_scale_factor", None),
    ("antialias", False),
]
PAD = [("input", REQUIRED), ("pad", REQUIRED), ("mode", "constant"), ("value", None)]


def _interpolate(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run nearest, bilinear and trilinear interpolation; other modes need the dense tensor."""
    bound = bind(INTERPOLATE, args, kwargs)
    if bound is None or not _is_spatial(bound["input"]):
        return NotImplemented
    del func
    found = interpolation_reads(bound)
    if found is None:
        return NotImplemented
    x, (cells, weights) = bound["input"], found
    activation = x.sparse()
    with call.recorded("interpolate") as facts:
        facts["engine"] = "rows"
        if not weights:
            return call.wrap(picked(activation, [part.flatten() for part in cells]))
        return call.wrap(blended(activation, cells, weights))


def _pad(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run torch.nn.functional.pad along the spatial axes."""
    del func
    bound = bind(PAD, args, kwargs)
    if bound is None or not _is_spatial(bound["input"]):
        return NotImplemented
    x, pads = bound["input"], [int(p) for p in bound["pad"]]
    rank = x.dim() - 2
    constant = bound["mode"] == "constant"
    if len(pads) % 2 or len(pads) > 2 * rank or (not constant and len(pads) != 2 * rank):
        return NotImplemented
    pads += [0] * (2 * rank - len(pads))
    activation = x.sparse()
    with call.recorded("pad") as facts:
        facts["engine"] = "rows"
        cells = []
        for axis, size in enumerate(activation.sites.grid):
            low, high = pads[2 * (rank - 1 - axis) : 2 * (rank - axis)]
            numbers = torch.arange(size, dtype=torch.float64).view(1, 1, size)
            # Padding the cells' own numbers tells which cell each place reads.
            options = {"value": float(OUTSIDE)} if constant else {"mode": bound["mode"]}
            cells.append(F.pad(numbers, (low, high), **options).flatten().long().to(x.device))
        return call.wrap(picked(activation, cells, outside=float(bound["value"] or 0.0)))


def _is_spatial(x: Any) -> bool:
    return isinstance(x, MarkedTensor) and x.dim() in (4, 5) and x.is_floating_point()


HANDLERS: dict[Any, Handler] = {F.interpolate: _interpolate, F.pad: _pad}
