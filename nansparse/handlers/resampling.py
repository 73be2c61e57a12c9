"""Interpolation and padding: every output reads fixed cells of the grid, and NaN spreads as IEEE has it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.handlers.arguments import REQUIRED, bind
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
LINEAR = {"bilinear": 2, "trilinear": 3}
NEAREST = ("nearest", "nearest-exact")


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
        cells = [part.to(x.device) for part in cells]
        if not weights:
            return call.wrap(picked(activation, [part.flatten() for part in cells]))
        return call.wrap(blended(activation, cells, [part.to(x.device) for part in weights]))


def interpolation_reads(bound: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]] | None:
    """Say which cells each output place of an interpolation reads.

    Args:
        bound: The arguments of `torch.nn.functional.interpolate` by name.

    Returns:
        One int64 (out, k) a spatial axis, and their weights, of the same shapes; no weights where k is 1.
        None for other modes than nearest, bilinear and trilinear, and with antialiasing.
    """
    x, mode = bound["input"], bound["mode"]
    rank = x.dim() - 2
    if bound["antialias"] or (mode not in NEAREST and LINEAR.get(mode) != rank):
        return None
    # The output grid, and the errors of torch, from a tensor without data.
    names = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor")
    stand_in = torch.empty(x.shape, dtype=torch.float32, device="meta")
    out = F.interpolate(stand_in, **{n: bound[n] for n in names}).shape
    scales = [None] * rank if bound["recompute_scale_factor"] else _per_axis(bound["scale_factor"], rank)
    axes = list(zip(x.shape[2:], out[2:], scales, strict=True))
    if mode in NEAREST:
        return [_nearest_cells(*axis, mode)[:, None] for axis in axes], []
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    corners = bool(bound["align_corners"])
    cells, weights = zip(*(_linear_cells(*axis, corners, wide) for axis in axes), strict=True)
    return list(cells), list(weights)


def _per_axis(scale: Any, rank: int) -> list[float | None]:
    if scale is None or isinstance(scale, (int, float)):
        return [scale] * rank
    return list(scale)


def _nearest_cells(size: int, out: int, scale: float | None, mode: str) -> Tensor:
    """Say which cell each output place of one axis reads, by letting torch interpolate the cells' numbers."""
    numbers = torch.arange(size, dtype=torch.float32).view(1, 1, size)
    if scale is None:
        return F.interpolate(numbers, size=out, mode=mode).flatten().long()
    return F.interpolate(numbers, scale_factor=scale, mode=mode).flatten().long()


def _linear_cells(
    size: int, out: int, scale: float | None, align_corners: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Say which two cells each output place of one axis reads, and their weights.

    Args:
        size: Cells of the axis.
        out: Output places.
        scale: The scale factor that was asked for; None if the sizes decide.
        align_corners: Whether the centres of the outermost cells stay in place.
        dtype: Type in which torch computes positions.

    Returns:
        Cells int64 (out, 2) and weights (out, 2).
    """
    place = torch.arange(out, dtype=dtype)
    if out == size:
        position = place
    elif align_corners:
        step = torch.tensor((size - 1) / (out - 1) if out > 1 else 0.0, dtype=dtype)
        position = place * step
    else:
        step = torch.tensor(1 / scale if scale else size / out, dtype=dtype)
        position = ((place + 0.5) * step - 0.5).clamp(min=0)
    first = position.long().clamp(max=size - 1)
    # Where the position is a cell's own, torch still reads the next one, with weight 0: NaN spreads from it.
    second = (first + (0 if out == size else 1)).clamp(max=size - 1)
    share = (position - first).clamp(0, 1)
    return torch.stack([first, second], 1), torch.stack([1 - share, share], 1)


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
