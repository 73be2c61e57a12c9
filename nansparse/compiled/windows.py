"""Loops over the windows of a convolution or pooling: NaN cells, kept windows, rows read.

A plane is a volume of depth 1 here. A geometry is (4, 3) int64: kernel, stride, lower padding and dilation,
one column an axis.
"""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit, prange


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
    "void(int32[:, ::1], int64, int64[::1], int64[::1], int32[::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def list_windows(counts, limit, starts, numbers, nan_cells):
    """List the kept windows.

    Args:
        counts: int32 (lines, w), NaN cells of every window.
        limit: Windows with fewer are kept.
        starts: int64 (lines,), kept windows before each line.
        numbers: int64 (M,), written: numbers of the kept windows.
        nan_cells: int32 (M,), written: their NaN cells.
    """
    lines, w = counts.shape
    for line in prange(lines):
        i = starts[line]
        for x in range(w):
            if counts[line, x] < limit:
                numbers[i] = line * w + x
                nan_cells[i] = counts[line, x]
                i += 1


@njit
def reach_of(geometry, height, width):
    """Say how far each cell of a window inside the grid lies from the first, in flat numbers: int64 (K,)."""
    kd, kh, kw = geometry[0, 0], geometry[0, 1], geometry[0, 2]
    reach = np.empty(kd * kh * kw, dtype=np.int64)
    for k in range(reach.shape[0]):
        a, b, c = k // (kh * kw), k // kw % kh, k % kw
        reach[k] = (a * geometry[3, 0] * height + b * geometry[3, 1]) * width + c * geometry[3, 2]
    return reach


@njit
def read_window(row_of, flat, number, out_grid, geometry, reach, padding, table, i):
    """Look up the rows that one window reads.

    Args:
        row_of: int32 (N, D, H, W), the row of each site.
        flat: The same, (N * D * H * W,).
        number: The window's.
        out_grid: int64 (3,), windows along each axis.
        geometry: See the head of this file.
        reach: Of `reach_of`.
        padding: What stands for a cell outside the grid.
        table: int32 (i + 1 or more, K), written in line i.
        i: See `table`.
    """
    _, depth, height, width = row_of.shape
    kd, kh, kw = geometry[0, 0], geometry[0, 1], geometry[0, 2]
    ad, ah, aw = geometry[3, 0], geometry[3, 1], geometry[3, 2]
    line = number // out_grid[2]
    x = (number - line * out_grid[2]) * geometry[1, 2] - geometry[2, 2]
    plane = line // out_grid[1]
    y = (line - plane * out_grid[1]) * geometry[1, 1] - geometry[2, 1]
    n = plane // out_grid[0]
    z = (plane - n * out_grid[0]) * geometry[1, 0] - geometry[2, 0]
    ends = x + (kw - 1) * aw < width and y + (kh - 1) * ah < height and z + (kd - 1) * ad < depth
    if x >= 0 and y >= 0 and z >= 0 and ends:
        base = ((n * depth + z) * height + y) * width + x
        for k in range(reach.shape[0]):
            table[i, k] = flat[np.uint64(base + reach[k])]
        return
    for k in range(reach.shape[0]):
        a, b, c = z + k // (kh * kw) * ad, y + k // kw % kh * ah, x + k % kw * aw
        inside = 0 <= a < depth and 0 <= b < height and 0 <= c < width
        table[i, k] = row_of[n, a, b, c] if inside else padding


@njit(
    "void(int32[:, :, :, ::1], int64[::1], int64[::1], int64[:, ::1], int64, int32[:, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def read_table(row_of, numbers, out_grid, geometry, padding, table):
    """Look up the rows that windows read.

    Args:
        row_of: int32 (N, D, H, W), the row of each site.
        numbers: int64 (M,), numbers of the windows.
        out_grid: int64 (3,), windows along each axis.
        geometry: See the head of this file.
        padding: What stands for a cell outside the grid.
        table: int32 (M, K), written.
    """
    flat, reach = row_of.reshape(-1), reach_of(geometry, row_of.shape[2], row_of.shape[3])
    for i in prange(numbers.shape[0]):
        read_window(row_of, flat, numbers[i], out_grid, geometry, reach, padding, table, i)
