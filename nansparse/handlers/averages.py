"""Averages: over all of space, of the real values only; over windows, NaN spreads as IEEE has it."""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.handlers.arguments import REQUIRED, bind, named_functions
from nansparse.model_call import Handler, ModelCall
from nansparse.sampling import OUTSIDE, blended
from nansparse.windows import as_ints

WINDOW = [("input", REQUIRED), ("kernel_size", REQUIRED), ("stride", None), ("padding", 0)]
WINDOW = [*WINDOW, ("ceil_mode", False), ("count_include_pad", True), ("divisor_override", None)]


def real_mean(activation: SparseActivation, nan: float | str) -> Tensor:
    """Average over space.

    Args:
        activation: The input.
        nan: "ignore" to average the real values only, or what every NaN cell counts as.

    Returns:
        (N, C); NaN where a channel of a sample has no real value and NaN is ignored.
    """
    rows, sites = activation.rows, activation.sites
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    cells = sites.total // max(sites.batch, 1)
    # Rows are sorted by sample, so that each sample is a piece of memory.
    parts = [wide[start:end] for start, end in itertools.pairwise(sites.ends)]
    empty = wide.new_empty(0, activation.channels)
    total = torch.stack([part.nansum(0) for part in parts]) if parts else empty
    count = torch.stack([(~part.isnan()).sum(0).to(wide.dtype) for part in parts]) if parts else empty
    if isinstance(nan, str):
        return (total / count).to(rows.dtype)
    return ((total + (cells - count) * nan) / cells).to(rows.dtype)


def _adaptive(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run adaptive average pooling: the mean of a window's real values, NaN where it has none."""
    bound = bind([("input", REQUIRED), ("output_size", REQUIRED)], args, kwargs)
    if bound is None:
        return NotImplemented
    x, size = bound["input"], bound["output_size"]
    sizes = (size,) if isinstance(size, int) else tuple(size)
    nan = call.policy.statistics_nan
    with call.recorded(func.__name__) as facts:
        if x.dim() in (4, 5) and set(sizes) == {1}:
            facts["engine"] = "rows"
            return call.mark(_as_image(real_mean(x.sparse(), nan), x.dim()))
        facts.update(engine="dense", densified=1)
        dense = x.dense()
        empty = dense.isnan()
        if not isinstance(nan, str):
            return func(dense.masked_fill(empty, nan), size)
        share = func((~empty).to(dense.dtype), size)
        return call.mark(func(dense.masked_fill(empty, 0.0), size) / share)


def _window(call: ModelCall, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run average pooling: global if the window is the grid, else NaN spreads over the windows it is in."""
    bound = bind(WINDOW, args, kwargs)
    rank = 2 if "2d" in func.__name__ else 3
    if bound is None or bound["divisor_override"] is not None:
        return NotImplemented
    x, stride = bound["input"], bound["stride"]
    grid = tuple(x.shape[-rank:])
    kernel = as_ints(bound["kernel_size"], rank, "kernel_size", 1)
    # torch takes an empty stride for none.
    steps = kernel if stride is None or stride == [] else as_ints(stride, rank, "stride", 1)
    pads = as_ints(bound["padding"], rank, "padding", 0)
    if kernel == grid and not any(pads):
        return _adaptive(call, _GLOBAL[rank], (x, 1), {})
    if x.dim() != rank + 2:
        return NotImplemented
    out = func(
        torch.empty(x.shape, device="meta"), *args[1:], **{k: v for k, v in kwargs.items() if k != "input"}
    )
    with call.recorded(f"avg_pool{rank}d") as facts:
        facts["engine"] = "rows"
        reads = [
            _window_cells(*axis, count_padding=bound["count_include_pad"])
            for axis in zip(grid, out.shape[2:], kernel, steps, pads, strict=True)
        ]
        cells, weights = ([part.to(x.device) for part in parts] for parts in zip(*reads, strict=True))
        return call.wrap(blended(x.sparse(), cells, weights))


def _window_cells(
    size: int, out: int, kernel: int, stride: int, padding: int, *, count_padding: bool
) -> tuple[Tensor, Tensor]:
    """Say what each window of one axis reads, int64 (out, kernel), and the weight of each of its cells."""
    read = torch.arange(out)[:, None] * stride - padding + torch.arange(kernel)
    inside = (read >= 0) & (read < size)
    # Windows that ceil_mode lets reach past the padding are shorter there.
    counted = (read < size + padding) if count_padding else inside
    weights = inside.double() / counted.sum(1, keepdim=True)
    return read.masked_fill(~inside, OUTSIDE), weights


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
    nan = call.policy.statistics_nan
    with call.recorded(func.__name__) as facts:
        if x.dim() in (4, 5) and len({axis % x.dim() for axis in axes}) == x.dim() - 2:
            facts["engine"] = "rows"
            out = real_mean(x.sparse(), nan)
            return call.mark(_as_image(out, x.dim()) if bound["keepdim"] else out)
        facts.update(engine="dense", densified=1)
        dense = x.dense()
        if not isinstance(nan, str):
            return dense.masked_fill(dense.isnan(), nan).mean(axes, keepdim=bound["keepdim"])
        return call.mark(dense.nanmean(axes, keepdim=bound["keepdim"]))


def _as_image(values: Tensor, dims: int) -> Tensor:
    return values.view(*values.shape, *(1,) * (dims - 2))


_GLOBAL = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
HANDLERS: dict[Any, Handler] = {
    **dict.fromkeys((F.adaptive_avg_pool2d, F.adaptive_avg_pool3d), _adaptive),
    **dict.fromkeys((*named_functions("avg_pool2d"), *named_functions("avg_pool3d")), _window),
    **dict.fromkeys((torch.mean, Tensor.mean), _mean),
}
