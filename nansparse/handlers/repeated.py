"""Convolutions of tensors without NaN whose windows repeat each other: one of them is computed for all.

What geometry says of a tensor is looked up in its values before it is used: memory may change where nobody
sees it (scripted functions, other threads, arrays that share it).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn import Parameter

from nansparse.activation import SparseActivation
from nansparse.compiled import kernels_for
from nansparse.convolution import Convolution
from nansparse.engine import registry
from nansparse.errors import UnexpectedNaNError
from nansparse.execution import LAST_RESORT, find_choice, run_convolution
from nansparse.model_call import ModelCall
from nansparse.plan import WindowPlan
from nansparse.pool import empty_rows
from nansparse.sites import Sites
from nansparse.uniform import Uniform

# Fewer multiply-adds are done before it is known which of them are repeats.
LEAST_MACS = 1 << 25
# Finding the repeats and laying them out takes time that no engine has prices for: what is left of the
# convolution must take no more than this share of a dense one.
MOST_OF_DENSE = 0.5
# Torch runs convolutions of one 3D sample with fewer values in a plane across its last axis without oneDNN.
MOST_WITHOUT_ONEDNN = 20480
# Differences between repeats that are rounding: as a share, and in any case.
ROUNDING = 1e-5, 1e-7


def fits_plainly(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
    """Say whether a convolution's arguments are plain tensors that torch would take.

    Args:
        x: The input.
        weight: The weight.
        bias: The bias, or None.
        groups: Number of groups.

    Returns:
        True if they are; what is not has to be torch's affair.
    """
    given = [x, weight] if bias is None else [x, weight, bias]
    plain = all(type(t) in (Tensor, Parameter) and t.dtype == x.dtype and t.device == x.device for t in given)
    if not plain or x.dim() != weight.dim() or any(unpack_dual(t).tangent is not None for t in given):
        return False
    return len(weight) > 0 and (bias is None or bias.dim() == 1) and groups > 0


def convolve_once(
    call: ModelCall,
    x: Tensor,
    convolution: Convolution,
    region: Uniform,
    repeats: Uniform,
    facts: dict[str, Any],
) -> Tensor | None:
    """Compute the windows that differ, and copy the others from those.

    Args:
        call: The state of the call.
        x: (N, C, *grid), no NaN.
        convolution: What to compute.
        region: Which sites of the input should repeat each other.
        repeats: Which windows then do.
        facts: What is recorded; the engine and the repeats are added if this was done.

    Returns:
        (N, C_out, *out_grid), channels last in memory; None where torch would lay it out otherwise, where a
        dense convolution is as fast, where no engine for CPUs takes such a tensor, or where it does not
        repeat itself after all.
    """
    windows, batch = convolution.windows, len(x)
    macs_of_window = windows.volume * x.shape[1] * convolution.out_channels
    worth_it = repeats.share * repeats.mask.numel() * macs_of_window >= LEAST_MACS
    if not worth_it or not _is_ordinary(x, convolution):
        return None
    # Turning the result around takes longer than what is spared.
    if not gives_channels_last(x, convolution.weight):
        return None
    originals = repeats.originals()
    out = Sites(_differing(originals), batch, windows.out_grid, x.device)
    # Rows may be a copy, which is made once it is known to be worth it.
    stand_in = torch.empty(()).expand(x.numel() // x.shape[1], x.shape[1])
    activation = SparseActivation(Sites(None, batch, windows.grid, x.device), stand_in, partial=False)
    plan = WindowPlan.of_chosen(activation, windows, out)
    activation.sites.plans[windows, convolution.threshold] = plan
    if not _pays(call, activation, convolution):
        return None
    rows = x.detach().movedim(1, -1).contiguous().view(-1, x.shape[1])
    if not _repeats(rows, region.originals()):
        return None
    found = _computed(call, activation.with_values(rows), convolution, facts)
    if found is None:
        return None
    facts["macs_repeated"] = (out.total - len(out)) * macs_of_window
    dense = empty_rows(found, out.total, convolution.out_channels)
    source, kernels = out.row_of.flatten().index_select(0, originals), kernels_for(found)
    if kernels is None or source.dtype != torch.int32:
        torch.index_select(found, 0, source, out=dense)
    else:
        kernels.run(kernels.cells.spread_rows, found, source, len(found), False, False, 0.0, into=(dense,))
    return _as_image(dense, batch, windows.out_grid)


def gives_channels_last(x: Tensor, weight: Tensor) -> bool:
    """Tell whether torch's convolution on a CPU is sure to lay its result out channels last.

    Args:
        x: (N, C, *grid).
        weight: (C_out, C, *kernel).

    Returns:
        True if one of the two lies so; False otherwise, and where torch may lose the layout.
    """
    if x.dim() == 5:
        # Small 3D layers run without oneDNN and lose the layout.
        thin = weight[0, 0, 0].numel() == 1 and torch.get_num_threads() == 1
        if thin or (len(x) == 1 and x[..., 0].numel() <= MOST_WITHOUT_ONEDNN):
            return False
    return _has_channels_last(x) or _has_channels_last(weight)


def _has_channels_last(x: Tensor) -> bool:
    """Tell the layout of a tensor by its strides: those of a single cell or channel fit others too."""
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return x.is_contiguous(memory_format=layout) and x.stride(1) < x.stride(-1)


def _is_ordinary(x: Tensor, convolution: Convolution) -> bool:
    """Say whether this is one of the convolutions for which there are engines, in the way torch runs it."""
    if x.dim() not in (4, 5) or x.device.type != "cpu" or x.dtype != torch.float32 or not x.numel():
        return False
    if convolution.windows.transposed or convolution.groups > 1 or torch.is_autocast_enabled("cpu"):
        return False
    bias, weight = convolution.bias, convolution.weight
    fits = weight.shape[1] == x.shape[1] and (bias is None or len(bias) == len(weight))
    # Without oneDNN torch lays some results out otherwise.
    return fits and bool(torch.backends.mkldnn.enabled)


def _differing(originals: Tensor) -> Tensor:
    """List what repeats nothing but itself."""
    return (originals == torch.arange(len(originals))).nonzero().flatten()


def _repeats(rows: Tensor, originals: Tensor) -> bool:
    """Say whether rows (P, C) are what they should repeat, to rounding; NaN is not."""
    kernels = kernels_for(rows)
    if kernels is None:
        wanted = rows.index_select(0, originals)
        return torch.allclose(rows, wanted, *ROUNDING)
    differ = torch.empty(-(-len(rows) // kernels.repeats.BLOCK), dtype=torch.bool)
    kernels.run(kernels.repeats.compare_rows, rows, originals, *ROUNDING, into=(differ,))
    return not bool(differ.any())


def _pays(call: ModelCall, activation: SparseActivation, convolution: Convolution) -> bool:
    """Say whether leaving windows out is predicted to be worth it."""
    choice = find_choice(registry, call.policy.engine, activation, convolution, call.record.faults)
    first, forecast = choice.engines[0].name, choice.forecast
    return first != LAST_RESORT and forecast.get(first, 0.0) <= MOST_OF_DENSE * forecast.get(LAST_RESORT, 0.0)


def _computed(
    call: ModelCall, activation: SparseActivation, convolution: Convolution, facts: dict[str, Any]
) -> Tensor | None:
    """Compute the windows of a plan, (M, C_out)."""
    try:
        found, engine, choice = run_convolution(
            registry,
            call.policy.engine,
            activation,
            convolution,
            layer=call.layer(),
            faults=call.record.faults,
        )
    except UnexpectedNaNError:  # the layer's own, which a dense run passes on as well
        return None
    facts.update(engine=engine.name, forecast=choice.forecast)
    return found.rows


def _as_image(rows: Tensor, batch: int, grid: tuple[int, ...]) -> Tensor:
    """Give rows the shape that the model expects: no view, which could not be detached in place."""
    image = rows.view(batch, *grid, rows.shape[1]).movedim(-1, 1)
    whole = (rows.untyped_storage(), rows.storage_offset(), image.shape, image.stride())
    return torch.empty(0, dtype=rows.dtype).set_(*whole)
