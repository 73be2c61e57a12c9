"""Loops over the windows of a convolution or pooling: NaN cells, kept windows, rows read.

A plane is a volume of depth 1 here. A geometry is (4, 3) int64: kernel, stride, lower padding and dilation,
one column an axis.
"""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit, prange

# Windows that share scratch memory.
BLOCK = 256
# Windows in a row from which on copying their reads together is faster than one by one.
SHORT_RUN = 4


@njit(
    "void(float32[::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def try_threads(x):
    """Do next to nothing on all threads: raises where numba cannot run in parallel."""
    for i in prange(x.shape[0]):
        x[i] = i


@njit(
    "void(int32[:, :, :, ::1], int64[:, ::1], int64, int32[:, :, :, ::1], int64[::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def count_windows(nan, geometry, limit, counts, kept):
    """Count the NaN cells of every window.

    Args:
        nan: int32 (N, D, H, W), NaN cells at each site.
        geometry: See the head of this file.
        limit: Windows with fewer are kept.
        counts: int32 (N, d, h, w), written.
        kept: int64 (N * d * h,), written: kept windows in each line.
    """
    _, depth, height, width = nan.shape
    _, d, h, w = counts.shape
    for line in prange(counts.shape[0] * d * h):
        n, z, y = line // (d * h), line // h % d, line % h
        row = counts[n, z, y]
        row[:] = 0
        for a in range(geometry[0, 0]):
            iz = z * geometry[1, 0] - geometry[2, 0] + a * geometry[3, 0]
            if iz < 0 or iz >= depth:
                continue
            for b in range(geometry[0, 1]):
                iy = y * geometry[1, 1] - geometry[2, 1] + b * geometry[3, 1]
                if iy < 0 or iy >= height:
                    continue
                source = nan[n, iz, iy]
                step = geometry[1, 2]
                for c in range(geometry[0, 2]):
                    shift = c * geometry[3, 2] - geometry[2, 2]
                    first = max(0, -(shift // step))
                    last = max(first, min(w, (width - 1 - shift) // step + 1))
                    # Slices, so that numba need not look for negative indices in the loop.
                    to, read = row[first:last], source[first * step + shift :]
                    if step == 1:
                        for x in range(last - first):
                            to[x] += read[x]
                    else:
                        for x in range(last - first):
                            to[x] += read[x * step]
        total = 0
        for x in range(w):
            total += 1 if row[x] < limit else 0
        kept[line] = total


@njit(
    "void(int32[:, ::1], int64, int64[::1], int64[::1], int32[::1], int32[:, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def list_windows(counts, limit, starts, numbers, nan_cells, row_of):
    """List the kept windows.

    Args:
        counts: int32 (lines, w), NaN cells of every window.
        limit: Windows with fewer are kept.
        starts: int64 (lines,), kept windows before each line.
        numbers: int64 (M,), written: numbers of the kept windows.
        nan_cells: int32 (M,), written: their NaN cells.
        row_of: int32 (lines, w), written: where each window stands in the list; M + 1 for a skipped one.
    """
    lines, w = counts.shape
    nowhere = np.int32(numbers.shape[0] + 1)
    for line in prange(lines):
        i = starts[line]
        for x in range(w):
            row_of[line, x] = nowhere
            if counts[line, x] < limit:
                numbers[i] = line * w + x
                nan_cells[i] = counts[line, x]
                row_of[line, x] = np.int32(i)
                i += 1


@njit
def reach_of(geometry, height, width):
    """Say how far each cell of a window lies from the first: int64 (K, 4), planes, lines, columns, flat."""
    kd, kh, kw = geometry[0, 0], geometry[0, 1], geometry[0, 2]
    reach = np.empty((kd * kh * kw, 4), dtype=np.int64)
    for k in range(reach.shape[0]):
        a, b, c = k // (kh * kw), k // kw % kh, k % kw
        z, y, x = a * geometry[3, 0], b * geometry[3, 1], c * geometry[3, 2]
        reach[k, 0], reach[k, 1], reach[k, 2], reach[k, 3] = z, y, x, (z * height + y) * width + x
    return reach


@njit
def read_windows(row_of, numbers, start, live, out_grid, geometry, reach, padding, firsts, reads):
    """Look up the rows that some windows read.

    Args:
        row_of: int32 (N, D, H, W), the row of each site.
        numbers: int64 (M,), sorted, numbers of all windows; empty if they are 0, 1, ...
        start: The first window wanted.
        live: How many are.
        out_grid: int64 (3,), windows along each axis.
        geometry: See the head of this file.
        reach: Of `reach_of`.
        padding: What stands for a cell outside the grid.
        firsts: int64 (live or more,), written: the number of the first site that each window reads, 0 where
            it reaches beyond the grid.
        reads: int32 (K, live or more), written.
    """
    _, depth, height, width = row_of.shape
    flat = row_of.reshape(-1)
    z_last, y_last, x_last = reach[-1, 0], reach[-1, 1], reach[-1, 2]
    line_start, line_end = np.int64(0), np.int64(0)
    n = z = y = np.int64(0)
    outside = 0
    crossing, crossing_reads = np.empty((5, live), dtype=np.int64), np.empty(live, dtype=np.int32)
    # Where windows follow each other without a gap, so do the sites they read: where such runs begin and end.
    runs, count, following = np.empty((2, live), dtype=np.int64), 0, np.int64(-1)
    for i in range(live):
        number = numbers[start + i] if numbers.shape[0] else start + i
        if number >= line_end:
            line = number // out_grid[2]
            line_start, line_end = line * out_grid[2], (line + 1) * out_grid[2]
            plane = line // out_grid[1]
            n = plane // out_grid[0]
            y = (line - plane * out_grid[1]) * geometry[1, 1] - geometry[2, 1]
            z = (plane - n * out_grid[0]) * geometry[1, 0] - geometry[2, 0]
        x = (number - line_start) * geometry[1, 2] - geometry[2, 2]
        starts = x >= 0 and y >= 0 and z >= 0
        if starts and x + x_last < width and y + y_last < height and z + z_last < depth:
            firsts[i] = ((n * depth + z) * height + y) * width + x
            if firsts[i] != following:
                runs[0, count] = i
                count += 1
            runs[1, count - 1] = i + 1
            following = firsts[i] + 1
        else:
            # Looked up below as if it was the first of the grid, so that no window needs to be asked there.
            firsts[i] = 0
            crossing[0, outside], crossing[4, outside] = i, ((n * depth + z) * height + y) * width + x
            crossing[1, outside], crossing[2, outside], crossing[3, outside] = z, y, x
            outside += 1
            following = -1
    if count * SHORT_RUN < live - outside:
        for k in range(reach.shape[0]):
            for run in range(count):
                begin, end = runs[0, run], runs[1, run]
                shift = firsts[begin] - begin + reach[k, 3]
                for i in range(begin, end):
                    reads[k, np.uint64(i)] = flat[np.uint64(shift + i)]
    elif outside < live:
        for k in range(reach.shape[0]):
            for i in range(live):
                reads[k, i] = flat[np.uint64(firsts[i] + reach[k, 3])]
    for k in range(reach.shape[0] if outside else 0):
        for e in range(outside):
            # What is negative is no small number without its sign.
            inside = np.uint64(crossing[1, e] + reach[k, 0]) < np.uint64(depth)
            inside &= np.uint64(crossing[2, e] + reach[k, 1]) < np.uint64(height)
            inside &= np.uint64(crossing[3, e] + reach[k, 2]) < np.uint64(width)
            at = flat[np.uint64(crossing[4, e] + reach[k, 3] if inside else 0)]
            crossing_reads[e] = at if inside else padding
        for e in range(outside):
            reads[k, np.uint64(crossing[0, e])] = crossing_reads[e]


@njit(
    "void(int32[:, :, :, ::1], int64[::1], int64[::1], int64[:, ::1], int64, int32[:, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def read_table(row_of, numbers, out_grid, geometry, padding, table):
    """Look up the rows that windows read, all of them.

    Args:
        row_of: int32 (N, D, H, W), the row of each site.
        numbers: int64 (M,), sorted, numbers of the windows.
        out_grid: int64 (3,), windows along each axis.
        geometry: See the head of this file.
        padding: What stands for a cell outside the grid.
        table: int32 (M, K), written.
    """
    windows, cells = table.shape
    reach = reach_of(geometry, row_of.shape[2], row_of.shape[3])
    for block in prange((windows + BLOCK - 1) // BLOCK):
        firsts, reads = np.empty(BLOCK, np.int64), np.empty((cells, BLOCK), np.int32)
        start = block * BLOCK
        live = min(BLOCK, windows - start)
        read_windows(row_of, numbers, start, live, out_grid, geometry, reach, padding, firsts, reads)
        for i in range(live):
            for k in range(cells):
                table[start + i, k] = reads[k, i]
