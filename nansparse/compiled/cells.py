"""Loops over rows: their sums and NaN cells."""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit, prange

# Sums may be taken in any order, so that they run on whole vectors; NaN and infinities keep their meaning.
ANY_ORDER = {"reassoc", "nsz", "contract"}
# Rows summed in float32 before their sum goes to a float64.
SHORT = 128


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
    "void(float32[:, ::1], int32[::1], int64, boolean, boolean, float32, float32[:, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def spread_rows(values, row_of, rows, laid_out, mended, fill, out):
    """Lay rows out on a grid.

    Args:
        values: (rows, C), or (N * grid, C) if `laid_out`.
        row_of: int32 (N * grid,), the row of each site; `rows` or more where there is none.
        rows: Number of sites that have a row.
        laid_out: Whether `values` has a row for every site, of which those without one mean nothing.
        mended: Whether NaN in a row is filled as well.
        fill: What sites without a row get.
        out: (N * grid, C), written.
    """
    width = values.shape[1]
    for i in prange(out.shape[0]):
        r = np.int64(row_of[i])
        if r >= rows:
            for q in range(width):
                out[i, q] = fill
            continue
        read = values[i] if laid_out else values[r]
        if mended:
            for q in range(width):
                v = read[q]
                out[i, q] = v if v == v else fill
        else:
            for q in range(width):
                out[i, q] = read[q]


@njit(
    "void(float32[:, ::1], int32[::1], int64[::1], int64, float32[:, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def write_channels(values, row_of, sites, start, out):
    """Write the rows of some sites into some channels of the rows of others; NaN at sites without a row.

    Args:
        values: (P, C).
        row_of: int32 (N * grid,), the row of each site, P or more where there is none; empty if the sites
            are the same.
        sites: int64 (R,), the numbers of the sites to write; empty if they are all sites of the grid.
        start: Channel of `out` to begin with.
        out: (R, D), C of its channels written.
    """
    rows, width = values.shape
    for i in prange(out.shape[0]):
        r = np.int64(i)
        if row_of.shape[0]:
            r = np.int64(row_of[sites[i] if sites.shape[0] else np.int64(i)])
        if r < rows:
            for q in range(width):
                out[i, start + q] = values[r, q]
        else:
            for q in range(width):
                out[i, start + q] = np.nan


@njit(
    "void(float32[:, ::1], float32[::1], boolean, float64[:, ::1], int64[:, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
    fastmath=ANY_ORDER,
)
def sum_channels(values, level, square, sums, counts):
    """Sum the real cells of each channel, or the squares of their distances from a level; piece by piece.

    Args:
        values: (P, C), NaN where a cell is.
        level: (C,), subtracted from each cell first.
        square: Whether to sum squares.
        sums: (pieces, C), written; P is parted evenly.
        counts: int64 (pieces, C), written: the real cells.
    """
    rows, width = values.shape
    pieces = sums.shape[0]
    zero = np.float32(0)
    for piece in prange(pieces):
        part, real = np.empty(width, np.float32), np.empty(width, np.int32)
        for q in range(width):
            sums[piece, q], counts[piece, q] = 0, 0
        end = rows * (piece + 1) // pieces
        for start in range(rows * piece // pieces, end, SHORT):
            part[:], real[:] = zero, 0
            for r in range(start, min(end, start + SHORT)):
                for q in range(width):
                    v = values[r, q]
                    d = v - level[q]
                    d = d * d if square else d
                    part[q] += d if v == v else zero
                    real[q] += 1 if v == v else 0
            for q in range(width):
                sums[piece, q] += part[q]
                counts[piece, q] += real[q]
