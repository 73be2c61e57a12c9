"""Convolutions of tensors without NaN whose windows repeat each other: one of them is computed for all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled import kernels_for
from nansparse.convolution import Convolution
from nansparse.engine import registry
from nansparse.errors import UnexpectedNaNError
from nansparse.execution import LAST_RESORT, find_choice, run_convolution
from nansparse.handlers.deferring import image_rows
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


def convolve_once(
    call: ModelCall, x: Tensor, convolution: Convolution, repeats: Uniform, facts: dict[str, Any]
) -> Tensor | None:
    """Compute the windows that differ, and copy the others from those.

    Args:
        call: The state of the call.
        x: (N, C, *grid), no NaN.
        convolution: What to compute.
        repeats: Which of its windows repeat each other.
        facts: What is recorded; the engine and the repeats are added if this was done.

    Returns:
        (N, C_out, *out_grid), channels last in memory; None where a dense convolution is as fast, or where no
        engine for CPUs takes such a tensor.
    """
    windows, batch = convolution.windows, len(x)
    macs_of_window = windows.volume * x.shape[1] * convolution.out_channels
    worth_it = repeats.share * repeats.mask.numel() * macs_of_window >= LEAST_MACS
    if not worth_it or windows.transposed or convolution.groups > 1 or torch.is_autocast_enabled("cpu"):
        return None
    rows = image_rows(x) if convolution.weight.dtype == x.dtype else None
    if rows is None:
        return None
    originals = repeats.originals()
    chosen = originals == torch.arange(len(originals))
    out = Sites(chosen.nonzero().flatten(), batch, windows.out_grid, x.device)
    activation = SparseActivation(Sites(None, batch, windows.grid, x.device), rows, partial=False)
    plan = WindowPlan.of_chosen(activation, windows, out)
    activation.sites.plans[windows, convolution.threshold] = plan
    found = _computed(call, activation, convolution, facts)
    if found is None:
        return None
    facts["macs_repeated"] = (out.total - len(out)) * macs_of_window
    dense = empty_rows(found, out.total, convolution.out_channels)
    source, kernels = out.row_of.flatten().index_select(0, originals), kernels_for(found)
    if kernels is None or source.dtype != torch.int32:
        torch.index_select(found, 0, source, out=dense)
    else:
        kernels.run(kernels.cells.spread_rows, found, source, len(found), False, False, 0.0, dense)
    return dense.view(batch, *windows.out_grid, -1).movedim(-1, 1)


def _computed(
    call: ModelCall, activation: SparseActivation, convolution: Convolution, facts: dict[str, Any]
) -> Tensor | None:
    """Compute the windows of a plan, (M, C_out), unless a dense convolution is predicted to be as fast."""
    faults = call.record.faults
    choice = find_choice(registry, call.policy.engine, activation, convolution, faults)
    first, forecast = choice.engines[0].name, choice.forecast
    if first == LAST_RESORT or forecast.get(first, 0.0) > MOST_OF_DENSE * forecast.get(LAST_RESORT, 0.0):
        return None
    try:
        found, engine, choice = run_convolution(
            registry, call.policy.engine, activation, convolution, layer=call.layer(), faults=faults
        )
    except UnexpectedNaNError:  # the layer's own, which a dense run passes on as well
        return None
    facts.update(engine=engine.name, forecast=choice.forecast)
    return found.rows
