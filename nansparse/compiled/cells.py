"""Loops over rows: their sums and NaN cells, and the cells of windows with the mean in place of NaN."""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit, prange

# Sums may be taken in any order, so that they run on whole vectors; NaN and infinities keep their meaning.
ANY_ORDER = {"reassoc", "nsz", "contract"}


@njit(
    "void(float32[:, ::1], int64[::1], float32[::1], int32[::1])",
    parallel=True,
    nogil=True,
    cache=True,
    fastmath=ANY_ORDER,
)
def sum_rows(values, place, sums, nans):
    """Sum the real cells of each row and count the others.

    Args:
        values: (R, C), NaN where a cell is.
        place: int64 (P,), the row in `values` of each row; empty if they are the same.
        sums: (P,), written.
        nans: int32 (P,), written.
    """
    width = values.shape[1]
    zero = np.float32(0)
    for p in prange(sums.shape[0]):
        r = place[p] if place.shape[0] else np.int64(p)
        total, bad = zero, 0
        for q in range(width):
            v = values[r, q]
            total += v if v == v else zero
            bad += 0 if v == v else 1
        sums[p], nans[p] = total, bad


@njit(
    "void("
    "float32[:, ::1], int64[::1], int32[:, ::1], int64[::1], int64, int32[::1], "
    "int64[::1], float32[::1], int32[::1], boolean, float32[:, :, ::1]"
    ")",
    parallel=True,
    nogil=True,
    cache=True,
    fastmath=ANY_ORDER,
)
def fill_cells(values, place, table, which, start, nan_cells, cells, sums, nans, partial, out):
    """Copy the cells of windows together, with the mean of a window's real cells for its NaN cells.

    Args:
        values: (R, C).
        place: int64 (P,), the row in `values` of each row; empty if they are the same.
        table: int32 (M, K), rows read; P stands for padding and P + 1 for a missing site.
        which: int64 (W,), rows of the table wanted; empty for all in order.
        start: The first of those that is wanted.
        nan_cells: int32 (M,), whether a window holds NaN.
        cells: int64 (M,), or (1,) for all alike: real and NaN cells of a window, in the unit of `nan_cells`.
        sums: (P,) of `sum_rows`; empty to sum again where it is needed.
        nans: int32 (P,) of `sum_rows`; read if `partial`.
        partial: Whether rows may hold NaN; the unit is then a cell, else a site.
        out: (m, K, C), written: windows number start, start + 1, ... of those; zeros behind the last.
    """
    # Unsigned numbers spare the loop a check for negative indices.
    rows = np.uint64(place.shape[0] if place.shape[0] else values.shape[0])
    reads, width = table.shape[1], values.shape[1]
    last = np.uint64(which.shape[0] if which.shape[0] else table.shape[0])
    zero = np.float32(0)
    for i in prange(out.shape[0]):
        w = np.uint64(start) + np.uint64(i)
        if w >= last:
            out[i] = zero
            continue
        w = np.uint64(which[w]) if which.shape[0] else w
        mean = zero
        if nan_cells[w]:
            total = zero
            for k in range(reads):
                r = np.uint64(table[w, k])
                if r < rows:
                    if sums.shape[0]:
                        total += sums[r]
                    else:
                        s = np.uint64(place[r]) if place.shape[0] else r
                        for q in range(width):
                            total += values[s, q]
            real = cells[w if cells.shape[0] > 1 else np.uint64(0)] - nan_cells[w]
            mean = total / np.float32(real if partial else real * width)
        for k in range(reads):
            r = np.uint64(table[w, k])
            if r >= rows:
                v = zero if r == rows else mean
                for q in range(width):
                    out[i, k, q] = v
            else:
                s = np.uint64(place[r]) if place.shape[0] else r
                if partial and nans[r]:
                    for q in range(width):
                        v = values[s, q]
                        out[i, k, q] = v if v == v else mean
                else:
                    for q in range(width):
                        out[i, k, q] = values[s, q]
