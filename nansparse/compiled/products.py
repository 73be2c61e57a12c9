"""Products of windows with a weight, straight from the rows they read, means in place of NaN.

Nothing is gathered: for each cell of a window the loop notes where its channels lie, be it a row of the
activation, zeros (padding), or the window's mean (a missing site), and the microkernel multiplies from there.
"""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit, prange

from nansparse.compiled.cells import ANY_ORDER
from nansparse.compiled.lookup import find_cells, find_means, mend_rows
from nansparse.compiled.microkernel import accumulate
from nansparse.compiled.windows import reach_of, read_windows

# numba keeps compiled loops by the content of their own file alone. What is compiled into them from others
# stands here as a digest, so that a change there changes this file (tests/test_compiled.py says which).
FROM_OTHERS = "8f6af90af24d"
# Windows that share the pointers and sums of a chunk, so many that fetching weights into a core's nearest
# cache is worth it; their sums stay in the next one.
BLOCK = 384
# Cells of the weight that are used for all of a block before the next ones are.
WEIGHT_CELLS = 8192


@njit(
    "void(float32[:, :, :], int64[::1], float32[:, :, :, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def pack_weight(taps, positions, packed):
    """Lay a weight out in panels of output channels.

    Args:
        taps: (O, C, kernel volume), anyhow in memory.
        positions: int64 (K,), kernel positions wanted.
        packed: (panels, K, C, panel), written; zeros where there are no more channels.
    """
    panels, reads, channels, panel = packed.shape
    for part in prange(panels * channels):
        p, c = part // channels, part % channels
        last = min(panel, taps.shape[0] - p * panel)
        for k in range(reads):
            at = positions[k]
            for q in range(last):
                packed[p, k, c, q] = taps[p * panel + q, c, at]
            for q in range(last, panel):
                packed[p, k, c, q] = 0


@njit(
    "void("
    "float32[:, ::1], int64[::1], int32[:, ::1], int32[:, :, :, ::1], int64[::1], int64[::1], "
    "int64[:, ::1], int64, int32[::1], int64[::1], float32[::1], int32[::1], boolean, "
    "float32[:, :, :, ::1], float32[::1], int64, int64, int64, int64[::1], float32[:, ::1], float32[::1]"
    ")",
    parallel=True,
    nogil=True,
    cache=True,
    fastmath=ANY_ORDER,
)
def multiply_windows(
    values,
    place,
    table,
    row_of,
    numbers,
    out_grid,
    geometry,
    count,
    nan_cells,
    cells,
    sums,
    nans,
    partial,
    weight,
    bias,
    shape,
    at_once,
    chunks,
    goal,
    out,
    checks,
):
    """Multiply windows with a weight, the mean of a window's real cells in place of its NaN cells.

    Args:
        values: (R, C).
        place: int64 (P,), the row in `values` of each row; empty if they are the same.
        table: int32 (M, K), rows that the windows read; P stands for padding and P + 1 for a missing site.
            Empty to look them up in `row_of`.
        row_of: int32 (N, D, H, W), the row of each site.
        numbers: int64 (M,), numbers of the windows in the grid of outputs; empty if they are 0, 1, ...
        out_grid: int64 (3,), windows along each axis.
        geometry: See `nansparse.compiled.windows`.
        count: M, the number of windows.
        nan_cells: int32 (M,), NaN cells of each window.
        cells: int64 (M,), or (1,) for all alike: real and NaN cells of a window, in the unit of `nan_cells`.
        sums: (P,) of `sum_rows`; empty to sum again where it is needed.
        nans: int32 (P,) of `sum_rows`; read if `partial`.
        partial: Whether rows may hold NaN; the unit is then a cell, else a site.
        weight: (panels, K, C, panel), output channels in panels as wide as the vectors of the shape.
        bias: (panels * panel,).
        shape: Which of `SHAPES`.
        at_once: Its windows.
        chunks: Parts in which threads take the windows.
        goal: int64 (M,), the row of `out` of each window; empty if they are in order.
        out: (M or more, O), written.
        checks: (chunks,), written: the sum of the results of each part, NaN if one of them is.
    """
    rows = place.shape[0] if place.shape[0] else values.shape[0]
    panels, reads, width, panel = weight.shape
    block = min(BLOCK, count // chunks + 2 * at_once) // at_once * at_once
    together = max(1, WEIGHT_CELLS // (width * panel))
    base, packed, row, pitch = values.ctypes.data, weight.ctypes.data, width * 4, block + at_once
    reach = reach_of(geometry, row_of.shape[2], row_of.shape[3])
    for chunk in prange(chunks):
        totals, constants = np.empty((pitch, panel), np.float32), np.zeros((block + 1, width), np.float32)
        read, addresses = np.empty((reads, block), np.int32), np.empty((reads, pitch), np.int64)
        firsts = np.empty(block, np.int64)
        mended = np.empty((block, reads if partial else 0, width), np.float32)
        held, means, lying = totals.ctypes.data, constants.ctypes.data, addresses.ctypes.data
        zeros = means + block * row
        # Whole microkernels, no whole blocks, so that the work is even.
        begin = (count * chunk // chunks + at_once - 1) // at_once * at_once
        check = np.float32(0)
        end = min(count, (count * (chunk + 1) // chunks + at_once - 1) // at_once * at_once)
        for start in range(begin, end, block):
            live = min(block, end - start)
            if table.shape[0]:
                for i in range(live):
                    firsts[i] = 0
                    for k in range(reads):
                        read[k, i] = table[start + i, k]
            else:
                read_windows(row_of, numbers, start, live, out_grid, geometry, reach, rows, firsts, read)
            find_means(values, place, read, start, live, nan_cells, cells, sums, partial, constants)
            find_cells(base, place, firsts, reach, read, live, rows, row, means, zeros, addresses)
            if partial:
                mend_rows(values, place, read, live, nans, constants, mended, addresses)
            for p in range(panels):
                for i in range(live + at_once):
                    for q in range(panel):
                        totals[i, q] = bias[p * panel + q]
                for k in range(0, reads, together):
                    part = packed + (p * reads + k) * panel * row
                    positions = min(together, reads - k)
                    for i in range(0, live, at_once):
                        first = lying + (k * pitch + i) * 8
                        accumulate(shape, held + i * panel * 4, first, pitch, part, positions, width, 0)  # type: ignore[call-arg]
                last = min(panel, out.shape[1] - p * panel)
                for i in range(live):
                    to = goal[start + i] if goal.shape[0] else start + i
                    for q in range(last):
                        out[to, p * panel + q] = totals[i, q]
                        check += totals[i, q]
        checks[chunk] = check
