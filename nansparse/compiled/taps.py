"""The weight of a 3 x 3 (x 3) convolution, transformed for minimal filtering by panels of output channels."""

# numba and llvmlite have no types.
# mypy: disable-error-code="no-untyped-def, call-arg, unreachable"

import numpy as np
from numba import njit

from nansparse.compiled.transforms import transform_taps


@njit
def transform_panel(taps, p, panel, weight, shares, shared):
    """Transform the weight of a panel of output channels, and sum it over the input channels.

    Args:
        taps: (O, C, K), the weight, 9 cells for planes, 27 for volumes.
        p: Number of the panel.
        panel: Its channels.
        weight: (cells, panels, C, panel), written at the panel.
        shares: (panels, K, panel), written at the panel, if wanted.
        shared: Whether it is.
    """
    out, width, volume = taps.shape
    near = np.zeros((volume, panel), np.float32)
    axes, step = 2 if volume == 9 else 3, weight.shape[1] * width * panel
    laid, source = weight.ctypes.data, near.ctypes.data
    if shared:
        shares[p] = 0
    for c in range(width):
        for q in range(min(panel, out - p * panel)):
            for k in range(volume):
                near[k, q] = taps[p * panel + q, c, k]
        transform_taps(axes, source, laid + (p * width + c) * panel * 4, step, panel)
        if shared:
            for k in range(volume):
                for q in range(panel):
                    shares[p, k, q] += near[k, q]
