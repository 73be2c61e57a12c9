"""The weight of a 3 x 3 (x 3) convolution, transformed for Winograd's minimal filtering.

This is G g G^T of `nansparse.compiled.transforms`. It is worked out in every call, which takes little, so
that nobody needs to know when a weight was changed.
"""

# One signature, compiled on import: with several, processes that compile them at the same time can overwrite
# each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit, prange


@njit
def spread_lines(taps, out, before, behind):
    """Apply G along one axis: (before, 3, behind, panel) to (before, 4, behind, panel), both (k, panel)."""
    half = np.float32(0.5)
    for i in range(before):
        for j in range(behind):
            read, to = i * 3 * behind + j, i * 4 * behind + j
            for q in range(taps.shape[1]):
                first, middle, last = taps[read, q], taps[read + behind, q], taps[read + 2 * behind, q]
                out[to, q] = first
                out[to + behind, q] = (first + middle + last) * half
                out[to + 2 * behind, q] = (first - middle + last) * half
                out[to + 3 * behind, q] = last


@njit(
    "void(float32[:, :, :], float32[:, :, :, ::1], float32[:, :, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def transform_weight(taps, packed, shares):
    """Lay a weight out in panels of output channels, transformed; and sum it over its input channels.

    Args:
        taps: (O, C, K), anyhow in memory; K is 9 or 27.
        packed: (cells, panels, C, panel), written; zeros where there are no more channels.
        shares: (panels, K, panel), written; empty if nobody wants the sums.
    """
    _, panels, channels, panel = packed.shape
    volume = taps.shape[2]
    for p in prange(panels):
        last = min(panel, taps.shape[0] - p * panel)
        plane, middle = np.zeros((volume, panel), np.float32), np.empty((volume // 3 * 4, panel), np.float32)
        whole, deep = np.empty((volume // 9 * 16, panel), np.float32), np.empty((64, panel), np.float32)
        total = np.zeros((volume, panel), np.float32)
        for c in range(channels):
            for q in range(last):
                for k in range(volume):
                    plane[k, q] = taps[p * panel + q, c, k]
            spread_lines(plane, middle, volume // 3, 1)
            spread_lines(middle, whole, volume // 9, 4)
            if volume == 27:
                spread_lines(whole, deep, 1, 16)
            for f in range(packed.shape[0]):
                for q in range(panel):
                    packed[f, p, c, q] = deep[f, q] if volume == 27 else whole[f, q]
            for k in range(volume if shares.shape[0] else 0):
                for q in range(panel):
                    total[k, q] += plane[k, q]
        for k in range(volume if shares.shape[0] else 0):
            for q in range(panel):
                shares[p, k, q] = total[k, q]
