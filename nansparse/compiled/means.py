"""A loop that adds what the means of missing sites contribute (equation 4 of `nansparse.fill`)."""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit, prange

from nansparse.compiled.cells import ANY_ORDER
from nansparse.compiled.windows import reach_of, read_windows

# As in `nansparse.compiled.products`.
FROM_OTHERS = "35b8ab7a3afd"
# Windows that share scratch memory.
BLOCK = 128


@njit(
    "void("
    "int32[:, :, :, ::1], int64[::1], int64[::1], int64[:, ::1], int64, int32[::1], float32[::1], "
    "float32[:, ::1], float32[:, ::1]"
    ")",
    parallel=True,
    nogil=True,
    cache=True,
    fastmath=ANY_ORDER,
)
def add_means(row_of, numbers, out_grid, geometry, channels, nan_cells, sums, shares, out):
    """Add the mean of a window's real cells, times the weight of its missing sites.

    Args:
        row_of: int32 (N, D, H, W), the row of each site; `len(sums) + 1` for a missing one.
        numbers: int64 (M,), sorted, numbers of the windows.
        out_grid: int64 (3,), windows along each axis.
        geometry: See `nansparse.compiled.windows`.
        channels: C, input channels.
        nan_cells: int32 (M,), missing sites of each window.
        sums: (P,), the sum of each row.
        shares: (K, O), the weight summed over the input channels.
        out: (N * windows, O), added to.
    """
    padding = sums.shape[0]
    cells, width = shares.shape
    windows = numbers.shape[0]
    reach = reach_of(geometry, row_of.shape[2], row_of.shape[3])
    for block in prange((windows + BLOCK - 1) // BLOCK):
        firsts, reads = np.empty(BLOCK, np.int64), np.empty((cells, BLOCK), np.int32)
        start = block * BLOCK
        live = min(BLOCK, windows - start)
        read_windows(row_of, numbers, start, live, out_grid, geometry, reach, padding, firsts, reads)
        means = np.zeros(BLOCK, np.float32)
        # Without any site there is no other row to read; windows at the rim are kept for their padding.
        for k in range(cells if padding else 0):
            for i in range(live):
                r = np.uint64(reads[k, i])
                # Nothing to decide: where there is no row another one is read and left out.
                real = sums[min(r, np.uint64(padding - 1))]
                means[i] += real if r < np.uint64(padding) else np.float32(0)
        for i in range(live):
            mean = means[i] / np.float32((cells - nan_cells[start + i]) * channels)
            to = out[numbers[start + i]]
            for k in range(cells):
                if reads[k, i] > padding:
                    for q in range(width):
                        to[q] += mean * shares[k, q]
