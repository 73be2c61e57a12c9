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
    for i in range(live):
        w = start + i
        if not nan_cells[w]:
            continue
        total = np.float32(0)
        for k in range(reads.shape[0]):
            r = np.uint64(reads[k, i])
            if r < rows and sums.shape[0]:
                total += sums[r]
            elif r < rows:
                s = np.uint64(place[r]) if place.shape[0] else r
                for q in range(width):
                    total += values[s, q]
        real = cells[w if cells.shape[0] > 1 else 0] - nan_cells[w]
        total /= np.float32(real if partial else real * width)
        for q in range(width):
            means[i, q] = total


@njit
def find_cells(base, place, reads, live, rows, row, means, zeros, addresses):
    """Note where each cell of some windows lies.

    Args:
        base: Address of the values.
        place: See `multiply_windows`.
        reads: int32 (K, live or more), rows that the windows read.
        live: How many windows there are.
        rows: Number of sites.
        row: Bytes of a row.
        means: Address of a row for each window, which stands for its missing sites.
        zeros: Address of a row of zeros, which stands for padding.
        addresses: int64 (K, live or more), written; zeros behind the last window.
    """
    for k in range(reads.shape[0]):
        for i in range(live):
            r = reads[k, i]
            absent = zeros if r == rows else means + i * row
            s = place[np.uint64(min(np.int64(r), rows - 1))] if place.shape[0] else np.int64(r)
            addresses[k, i] = base + s * row if r < rows else absent
        for i in range(live, addresses.shape[1]):
            addresses[k, i] = zeros


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
