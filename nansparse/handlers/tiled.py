"""Maxima and ties of windows that tile the grid, by compiled loops on CPUs and by kernels on GPUs."""

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled import kernels_for
from nansparse.compiled.peaks import may_tie, peaks_of_rows
from nansparse.compiled.plans import rows_read
from nansparse.fused import fused_for
from nansparse.fused.peaks import peaks_of_rows as peaks_on_device
from nansparse.plan import WindowPlan
from nansparse.policy import Policy
from nansparse.sites import Sites
from nansparse.ties import TilePeaks
from nansparse.windows import Windows


def peaks_of_image(last: Tensor, windows: Windows, out: Sites, policy: Policy) -> TilePeaks | str | None:
    """Look for ties in an image.

    Args:
        last: (N, *grid, C).
        windows: The geometry.
        out: All windows.
        policy: Says when a window is unstable.

    Returns:
        The peaks; the empty string if no window is unstable; None if a cell is no finite number, or nothing
        faster than torch's operations is at hand.
    """
    rows, before = last.reshape(-1, last.shape[-1]), Sites(None, out.batch, windows.grid, out.device)
    kernels = kernels_for(last) if last.is_contiguous() and last.numel() else None
    if kernels is not None:
        table = rows_read(kernels, before, out, windows)
        if not may_tie(kernels, rows, table, policy.epsilon):
            return ""
        found = peaks_of_rows(kernels, rows, before.places, table, policy)
    elif last.dtype == torch.float32 and (fused := fused_for(last)) is not None:
        found = peaks_on_device(fused, rows, before, out, windows, policy, laid_out=True)
    else:
        return None
    tile, some_tie, nan, infinite = found
    return None if nan or infinite else tile if some_tie else ""


def peaks_of_sites(
    activation: SparseActivation, plan: WindowPlan, windows: Windows, policy: Policy
) -> TilePeaks | None:
    """Find the peaks of windows that read a sparse activation.

    Args:
        activation: The input.
        plan: The windows that hold a real cell.
        windows: The geometry.
        policy: Says when a window is unstable.

    Returns:
        The peaks; None if a cell is infinite, or nothing faster than torch's operations is at hand.
    """
    kernels, values = kernels_for(activation), activation.values
    if kernels is not None:
        table = plan.taps[0].table
        tile, _, _, infinite = peaks_of_rows(kernels, values, activation.places, table, policy)
    elif activation.dtype == torch.float32 and (fused := fused_for(activation)) is not None:
        given, laid_out = (values, activation.sites, plan.out, windows, policy), activation.laid_out
        tile, _, _, infinite = peaks_on_device(fused, *given, laid_out=laid_out)
    else:
        # Ties in half types are those of half arithmetic.
        return None
    return None if infinite else tile
