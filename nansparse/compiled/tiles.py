"""Tiles of 2 x 2 (x 2) windows of a 3 x 3 (x 3) convolution: which are needed, what they read and lack.

A plane is a volume of depth 1 here, whose tiles are one window and one cell deep. Tiles are numbered
row-major over (sample, *tiles along each axis).
"""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def, call-arg, unreachable"

import numpy as np
from numba import njit, prange

from nansparse.compiled.cells import ANY_ORDER
from nansparse.compiled.lines import find_line, find_means


@njit
def least_row(goal_of, n, z, y, x, deep):
    """Give the least row of the windows of a tile."""
    _, depth, height, width = goal_of.shape
    least = goal_of[n, z, y, x]
    right, low, far = min(x + 1, width - 1), min(y + 1, height - 1), min(z + deep - 1, depth - 1)
    for plane in (z, far):
        for line in (y, low):
            least = min(least, goal_of[n, plane, line, x], goal_of[n, plane, line, right])
    return least


@njit("void(int32[:, :, :, ::1], int64, int64, int64[::1])", parallel=True, nogil=True, cache=True)
def count_tiles(goal_of, kept, deep, counts):
    """Count the tiles that hold a kept window.

    Args:
        goal_of: int32 (N, d, h, w), the row of each window, `kept` or more where it is skipped.
        kept: Kept windows.
        deep: Windows of a tile along the first axis, 1 or 2.
        counts: int64 (lines of tiles,), written.
    """
    _, depth, height, width = goal_of.shape
    planes, lines = (depth + deep - 1) // deep, (height + 1) // 2
    for line in prange(counts.shape[0]):
        plane, y = line // lines, line % lines * 2
        n, z = plane // planes, plane % planes * deep
        total = 0
        for x in range(0, width, 2):
            total += 1 if least_row(goal_of, n, z, y, x, deep) < kept else 0
        counts[line] = total


@njit(
    "void(int32[:, :, :, ::1], int64, int64, int64[::1], int64[::1])", parallel=True, nogil=True, cache=True
)
def list_tiles(goal_of, kept, deep, starts, numbers):
    """List the tiles that hold a kept window.

    Args:
        goal_of: See `count_tiles`.
        kept: See there.
        deep: See there.
        starts: int64 (lines of tiles,), needed tiles before each line.
        numbers: int64 (T,), written.
    """
    _, depth, height, width = goal_of.shape
    planes, lines, columns = (depth + deep - 1) // deep, (height + 1) // 2, (width + 1) // 2
    for line in prange(starts.shape[0]):
        plane, y = line // lines, line % lines * 2
        n, z = plane // planes, plane % planes * deep
        i = starts[line]
        for x in range(columns):
            if least_row(goal_of, n, z, y, 2 * x, deep) < kept:
                numbers[i] = line * columns + x
                i += 1


@njit
def find_tiles(
    tiles,
    start,
    live,
    row_of,
    goal_of,
    padding,
    rows,
    kept,
    laid_out,
    base,
    row,
    nothing,
    sums,
    read,
    reads,
    goals,
    totals,
):
    """Look up what some tiles read and where their results go.

    Args:
        tiles: int64 (T,), numbers of the tiles.
        start: The first one wanted.
        live: How many are.
        row_of: int32 (N, D, H, W), the row of each site, `rows + 1` where there is none.
        goal_of: int32 (N, d, h, w), the row of each window, `kept` or more where it is skipped.
        padding: int64 (3,), lower padding.
        rows: Number of sites that have a row; stands for padding.
        kept: Kept windows; stands for windows beyond the grid.
        laid_out: Whether values lie on the grid, else row by row.
        base: Address of the values.
        row: Bytes of a row.
        nothing: Address of a row of zeros, which stands for padding and missing sites.
        sums: (N * D * H * W,), the sum of each site's row, 0 where there is none; empty if it is not known.
        read: int32 (live or more, cells), written: the rows that a tile reads.
        reads: int64 (live or more, cells), written: the addresses of these rows.
        goals: int32 (live or more, results), written: the rows of its windows.
        totals: (live or more, cells), written if sums are known: those of the cells.
    """
    _, depth, height, width = row_of.shape
    _, out_depth, out_height, out_width = goal_of.shape
    deep, planes = goals.shape[1] // 4, read.shape[1] // 16
    layers, lines, columns = (out_depth + deep - 1) // deep, (out_height + 1) // 2, (out_width + 1) // 2
    flat, goal_flat = row_of.reshape(-1), goal_of.reshape(-1)
    numbers, copies, places = row_of.ctypes.data, read.ctypes.data, reads.ctypes.data
    adding, how = totals.ctypes.data, 1 if laid_out else 0
    known = sums.shape[0] > 0
    added = sums.ctypes.data if known else 0
    line, n, oz, oy = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for i in range(live):
        column = tiles[start + i] - line * columns
        # Divisions take long, and tiles come in order, most behind another one on a line.
        if column < 0 or column >= columns:
            line = tiles[start + i] // columns
            layer = line // lines
            n = layer // layers
            oz, oy = (layer - n * layers) * deep, (line - layer * lines) * 2
            column = tiles[start + i] - line * columns
        ox = column * 2
        z, y, x = oz - padding[0], oy - padding[1], ox - padding[2]
        inner = z >= 0 and y >= 0 and x >= 0
        inner &= z + planes <= depth and y + 4 <= height and x + 4 <= width
        for a in range(planes):
            for b in range(4):
                first, k = ((n * depth + z + a) * height + y + b) * width + x, (a * 4 + b) * 4
                if inner:
                    at = i * planes * 16 + k
                    find_line(
                        *(numbers + first * 4, first, how, base, row, rows, nothing, copies + at * 4),
                        *(places + at * 8, added, adding + at * 4),
                    )
                    continue
                # What is negative is no small number without its sign.
                line_inside = np.uint64(z + a) < np.uint64(depth) and np.uint64(y + b) < np.uint64(height)
                for c in range(4):
                    inside = line_inside and np.uint64(x + c) < np.uint64(width)
                    r = flat[np.uint64(first + c)] if inside else np.int32(rows)
                    there = first + c if laid_out else np.int64(r)
                    read[i, k + c], reads[i, k + c] = r, base + there * row if r < rows else nothing
                    if known:
                        totals[i, k + c] = sums[np.uint64(first + c)] if inside else np.float32(0)
        for e in range(0, goals.shape[1], 2):
            pz, py = oz + e // 4, oy + e // 2 % 2
            number = np.uint64(((n * out_depth + pz) * out_height + py) * out_width + ox)
            inside = pz < out_depth and py < out_height
            goals[i, e] = goal_flat[number] if inside else kept
            goals[i, e + 1] = goal_flat[number + np.uint64(1)] if inside and ox + 1 < out_width else kept


@njit(fastmath=ANY_ORDER)
def find_fills(values, place, known, rows, live, read, holed, totals, missing, means):
    """Find the mean of the real cells of windows in tiles that miss cells, and which cells these are.

    Args:
        values: See `nansparse.compiled.winograd.multiply_tiles`.
        place: See there.
        known: Whether `totals` are there already.
        rows: Number of sites that have a row.
        live: How many tiles there are.
        read: int32 (live or more, cells), the rows that a tile reads.
        holed: int64 (live or more,), written: 1 where a cell is missing, else 0.
        totals: (live or more, cells), the sum of each cell's channels, 0 for padding and missing sites;
            written where cells are missing unless known.
        missing: (live or more, cells), written where cells are missing: 1 for those, else 0.
        means: (live or more, results), written there too: the mean of each window's real cells.

    Returns:
        Nothing of use.
    """
    cells, results, width = read.shape[1], means.shape[1], values.shape[1]
    numbers, summed, lacking, filling = (
        read.ctypes.data,
        totals.ctypes.data,
        missing.ctypes.data,
        means.ctypes.data,
    )
    axes = 2 if cells == 16 else 3
    for i in range(live):
        most = np.int32(0)
        for k in range(cells):
            most = max(most, read[i, k])
        holed[i] = 1 if most > rows else 0
        if most <= rows:
            continue
        for k in range(0 if known else cells):
            r, total = np.uint64(read[i, k]), np.float32(0)
            if r < np.uint64(rows):
                s = np.uint64(place[r]) if place.shape[0] else r
                for q in range(width):
                    total += values[s, q]
            totals[i, k] = total
        at = i * cells * 4
        find_means(axes, numbers + at, rows, summed + at, width, lacking + at, filling + i * results * 4)
    # Named once more: numba lets go of what is used by its address only.
    return totals.size + missing.size + means.size
