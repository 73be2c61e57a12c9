"""What the windows of a block read: where each cell lies, with the mean in place of NaN.

Small loops of one thread, called by `nansparse.compiled.products` for each block of windows.
"""

# numba has no types. What is not explained here is in `multiply_windows`.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit


@njit
def find_means(values, place, reads, start, live, nan_cells, cells, sums, partial, means):
    """Write the mean of the real cells of windows that hold NaN, as often as there are channels.

    Args:
        values: See `multiply_windows`.
        place: See there.
        reads: int32 (K, live or more), rows that the windows read.
        start: The first window.
        live: How many there are.
        nan_cells: See there.
        cells: See there.
        sums: See there.
        partial: See there.
        means: (live or more, C), written.
    """
    # Unsigned numbers spare the loops a check for negative indices.
    rows = np.uint64(place.shape[0] if place.shape[0] else values.shape[0])
    width = values.shape[1]
    filled, totals, count = np.empty(live, np.int64), np.zeros(live, np.float32), 0
    for i in range(live):
        filled[count] = i
        count += 1 if nan_cells[start + i] else 0
    if sums.shape[0]:
        # Nothing to decide and nothing to wait for: where there is no row another one is read and left out.
        for k in range(reads.shape[0] if count else 0):
            for j in range(count):
                r = np.uint64(reads[k, np.uint64(filled[j])])
                real = sums[min(r, rows - np.uint64(1))]
                totals[j] += real if r < rows else np.float32(0)
    else:
        for j in range(count):
            for k in range(reads.shape[0]):
                r = np.uint64(reads[k, np.uint64(filled[j])])
                if r < rows:
                    s = np.uint64(place[r]) if place.shape[0] else r
                    for q in range(width):
                        totals[j] += values[s, q]
    for j in range(count):
        i = filled[j]
        w = start + i
        cells_there = cells[w if cells.shape[0] > 1 else 0] - nan_cells[w]
        mean = totals[j] / np.float32(cells_there if partial else cells_there * width)
        for q in range(width):
            means[i, q] = mean


@njit
def find_cells(base, place, firsts, reach, reads, live, rows, row, means, zeros, addresses):
    """Note where each cell of some windows lies.

    Args:
        base: Address of the values.
        place: See `multiply_windows`.
        firsts: See `read_windows`; zeros where reads come from a table.
        reach: Of `reach_of`.
        reads: int32 (K, live or more), rows that the windows read.
        live: How many windows there are.
        rows: Number of sites.
        row: Bytes of a row.
        means: Address of a row for each window, which stands for its missing sites.
        zeros: Address of a row of zeros, which stands for padding.
        addresses: int64 (K, live or more), written; zeros behind the last window.
    """
    last = np.int64(rows)
    # Of rows that are laid out on the grid the place is known without being looked up.
    laid_out = place.shape[0] > 0
    for k in range(reads.shape[0]):
        shift = base + reach[k, 3] * row
        for i in range(live):
            r = np.int64(reads[k, i])
            there = shift + firsts[i] * row if laid_out else base + r * row
            absent = zeros if r == last else means + i * row
            addresses[k, i] = there if r < last else absent
        for i in range(live, addresses.shape[1]):
            addresses[k, i] = zeros
    for i in range(live if laid_out else 0):
        if not firsts[i]:
            for k in range(reads.shape[0]):
                r = np.int64(reads[k, i])
                if r < last:
                    addresses[k, i] = base + place[np.uint64(r)] * row


@njit
def mend_rows(values, place, reads, live, nans, means, mended, addresses):
    """Copy the rows that are partly NaN, the window's mean in place of that, and note where the copies lie.

    Args:
        values: See `multiply_windows`.
        place: See there.
        reads: int32 (K, live or more), rows that the windows read.
        live: How many windows there are.
        nans: See there.
        means: (live or more, C).
        mended: (live or more, K, C), written.
        addresses: int64 (K, live or more), written where a row is copied.
    """
    rows = np.uint64(nans.shape[0])
    width = values.shape[1]
    base = mended.ctypes.data
    for i in range(live):
        for k in range(reads.shape[0]):
            r = np.uint64(reads[k, i])
            if r >= rows or not nans[r]:
                continue
            s = np.uint64(place[r]) if place.shape[0] else r
            for q in range(width):
                v = values[s, q]
                mended[i, k, q] = v if v == v else means[i, q]
            addresses[k, i] = base + (i * reads.shape[0] + k) * width * 4
