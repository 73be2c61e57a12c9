"""Loops over pooling windows that tile the grid: maxima, ties, and the way back."""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit, prange

# Windows that share a line of scratch memory.
BLOCK = 64


@njit(
    "void(float32[:, ::1], int32[:, ::1], float32, float32, int64[::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def find_tie(values, table, epsilon, least, found):
    """Look for a window in which two cells tie, up to the first.

    Args:
        values: (P, C).
        table: int32 (M, K), rows read; P and more stand for none.
        epsilon: Relative tolerance of a tie.
        least: Absolute tolerance of a tie.
        found: int64 (2,), zeros; written: 1 where a window with a tie was found, and where a NaN or infinity
            was, by the windows looked at.
    """
    rows, width = np.uint64(values.shape[0]), values.shape[1]
    windows, reads = table.shape
    lowest = np.float32(-np.inf)
    for block in prange((windows + BLOCK - 1) // BLOCK):
        if found[0]:
            continue
        best, second = np.empty(width, np.float32), np.empty(width, np.float32)
        odd, close = np.int32(0), np.int32(0)
        for w in range(block * BLOCK, min(windows, (block + 1) * BLOCK)):
            best[:] = lowest
            second[:] = lowest
            for k in range(reads):
                r = np.uint64(table[w, k])
                if r < rows:
                    cell = values[r]
                    for q in range(width):
                        v, top = cell[q], best[q]
                        lower = v if v < top else top
                        second[q] = lower if lower > second[q] else second[q]
                        best[q] = v if v > top else top
                        # NaN and infinities minus themselves are NaN.
                        odd |= np.int32(0) if v - v == np.float32(0) else np.int32(1)
            for q in range(width):
                near = abs(best[q] * epsilon) + least
                close |= np.int32(1) if best[q] - second[q] <= near else np.int32(0)
        # Threads only ever write ones.
        if close:
            found[0] = 1
        if odd:
            found[1] = 1


@njit(
    "UniTuple(int64, 2)("
    "float32[:, ::1], int64[::1], int32[:, ::1], float32, float32, int64, float32[:, "
    "::1], uint8[:, ::1], uint8[:, ::1], uint8[:, ::1]"
    ")",
    parallel=True,
    nogil=True,
    cache=True,
)
def pool_cells(values, place, table, epsilon, least, max_ties, best, codes, unstable, winner):
    """Find the maximum of each window, where it is, and which cells tie with it.

    Args:
        values: (R, C), NaN where a cell is.
        place: int64 (P,), the row in `values` of each row; empty if they are the same.
        table: int32 (M, K), rows read, K at most 8; P and more stand for none.
        epsilon: Relative tolerance of a tie.
        least: Absolute tolerance of a tie.
        max_ties: A window is unstable when more cells tie.
        best: (M, C), written: the maximum over the real cells; -inf where there is none.
        codes: uint8 (M, C), written: bit k set where cell k ties in an unstable window.
        unstable: uint8 (M, C), written: 1 in an unstable window.
        winner: uint8 (M, C), written: the bit of the first cell that holds the maximum; 1 if there is none.

    Returns:
        How many windows are unstable, counted over the channels; and whether any window reads NaN (1) or
        infinity (2), as the sum of both.
    """
    rows = np.uint64(place.shape[0] if place.shape[0] else values.shape[0])
    windows, reads = table.shape
    width = values.shape[1]
    lowest = np.float32(-np.inf)
    ties, nan, infinite = 0, 0, 0
    for block in prange((windows + BLOCK - 1) // BLOCK):
        bits = np.empty(width, dtype=np.int32)
        for w in range(block * BLOCK, min(windows, (block + 1) * BLOCK)):
            top = best[w]
            top[:] = lowest
            bits[:] = 0
            for k in range(reads):
                r = np.uint64(table[w, k])
                if r < rows:
                    cell = values[place[r] if place.shape[0] else np.int64(r)]
                    for c in range(width):
                        # A comparison with NaN is false.
                        top[c] = cell[c] if cell[c] > top[c] else top[c]
            for k in range(reads):
                r = np.uint64(table[w, k])
                if r < rows:
                    cell = values[place[r] if place.shape[0] else np.int64(r)]
                    tied, equal = (1 << k) + (1 << 16), 1 << (k + 8)
                    for c in range(width):
                        # The arithmetic of torch.isclose.
                        near = abs(top[c] * epsilon) + least
                        bits[c] += np.int32(tied) if top[c] - cell[c] <= near else np.int32(0)
                        bits[c] += np.int32(equal) if top[c] == cell[c] else np.int32(0)
                        bits[c] |= np.int32(0) if cell[c] == cell[c] else np.int32(1 << 24)
                        bits[c] |= np.int32(1 << 25) if abs(cell[c]) == np.inf else np.int32(0)
            for c in range(width):
                many = np.int32(1) if ((bits[c] >> 16) & 255) > max_ties else np.int32(0)
                first = (bits[c] >> 8) & 255
                first = first & -first
                codes[w, c] = (bits[c] & 255) * many
                unstable[w, c] = many
                winner[w, c] = first if first else 1
                ties += many
                nan += (bits[c] >> 24) & 1
                infinite += (bits[c] >> 25) & 1
    return ties, min(nan, 1) + 2 * min(infinite, 1)


@njit(
    "void("
    "float32[:, ::1], int64[::1], int32[::1], int32[::1], uint8[::1], uint8[:, ::1], "
    "uint8[:, ::1], float32[:, ::1], int32[::1]"
    ")",
    parallel=True,
    nogil=True,
    cache=True,
)
def put_back(values, place, row_of, window, bit, winner, codes, out, nans):
    """Read an unpooled activation at some sites.

    Args:
        values: (R, C), what is put back.
        place: int64 (P,), the row in `values` of each row; empty if they are the same.
        row_of: int32 (W,), the row of each window, P or more if it is missing; empty if none is.
        window: int32 (S,), the window of each site.
        bit: uint8 (S,), its bit there; 0 if it is in none.
        winner: uint8 (W, C), the bit of the winning cell.
        codes: uint8 (W, C), the bits of the cells that are NaN; empty if none is.
        out: (S, C), written.
        nans: int32 (S,), written: NaN cells of each row.
    """
    width = out.shape[1]
    zero, gone = np.float32(0), np.float32(np.nan)
    rows = place.shape[0] if place.shape[0] else values.shape[0]
    for s in prange(out.shape[0]):
        w, b = window[s], bit[s]
        r = np.int64(row_of[w]) if row_of.shape[0] else np.int64(w)
        bad = np.int32(0)
        if r < rows:
            source = values[place[r] if place.shape[0] else r]
            for c in range(width):
                out[s, c] = source[c] if winner[w, c] == b else zero
        else:
            # A missing value makes its place NaN by its code.
            out[s] = zero
        if codes.shape[0]:
            for c in range(width):
                nan = (codes[w, c] & b) != 0
                out[s, c] = gone if nan else out[s, c]
                bad += np.int32(1) if nan else np.int32(0)
        nans[s] = bad
