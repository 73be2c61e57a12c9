"""Products of tiles of windows with a 3 x 3 (x 3) weight, by Winograd's minimal filtering.

The cells of a tile are transformed (`nansparse.compiled.transforms`), multiplied with the transformed weight
by the microkernel, one product a transformed cell, and transformed back. Missing sites count as zeros there;
what the means in their place contribute is added to the results (equation 4 of `nansparse.fill`).
"""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def, call-arg, unreachable"

import numpy as np
from numba import njit, prange

from nansparse.compiled.cells import ANY_ORDER
from nansparse.compiled.microkernel import accumulate
from nansparse.compiled.taps import transform_panel
from nansparse.compiled.tiles import find_fills, find_tiles
from nansparse.compiled.transforms import copy_channels, transform_cells, transform_products

# As in `nansparse.compiled.products`.
FROM_OTHERS = "2abc56f0d3c2"
# Tiles whose products with a panel of the weight stay in a core's nearest cache, and the bytes of transformed
# cells that stay in the next one.
BLOCK, NEAR = 24, 131072


@njit
def held_until_here(arrays):
    """Name arrays once more that are used by their addresses: numba lets go of what is not named again.

    Args:
        arrays: A tuple of them. Asking one for its size here would not do, which numba knows without it.

    Returns:
        Zero.
    """
    return np.float32(0 * len(arrays))


@njit(fastmath=ANY_ORDER)
def sum_row(values, r):
    """Sum a row."""
    total = np.float32(0)
    for q in range(values.shape[1]):
        total += values[r, q]
    return total


@njit(parallel=True)
def sum_sites(values, place, row_of, rows):
    """Sum the row of each site; 0 where there is none."""
    sums = np.zeros(row_of.shape[0], np.float32)
    for i in prange(row_of.shape[0]):
        r = np.int64(row_of[i])
        if r < rows:
            sums[i] = sum_row(values, place[r] if place.shape[0] else r)
    return sums


@njit
def copy_results(near, nearing, goals, live, kept, first, last, width, laid):
    """Copy results of a panel to where they belong, those of skipped windows left out.

    Args:
        near: (live * results or more, panel), the results.
        nearing: Their address.
        goals: int32 (live or more, results), the rows of the windows.
        live: How many tiles there are.
        kept: Kept windows.
        first: The panel's first output channel.
        last: How many of its channels are wanted.
        width: Output channels.
        laid: Address of float32 (kept, width).

    Returns:
        Their sum.
    """
    check, panel = np.float32(0), near.shape[1]
    for i in range(live):
        for e in range(goals.shape[1]):
            if goals[i, e] < kept:
                at = i * goals.shape[1] + e
                copy_channels(nearing + at * panel * 4, laid + (goals[i, e] * width + first) * 4, last)
                for q in range(last):
                    check += near[at, q]
    return check


@njit(
    "float32("
    "float32[:, ::1], int64[::1], int32[:, :, :, ::1], int64, int32[:, :, :, ::1], int64[::1], int64[::1], "
    "boolean, boolean, float32[:, :, :], float32[::1], int64, int64, int64, int64, float32[:, ::1]"
    ")",
    parallel=True,
    nogil=True,
    cache=True,
)
def multiply_tiles(
    values,
    place,
    row_of,
    rows,
    goal_of,
    tiles,
    padding,
    some,
    summed,
    taps,
    bias,
    shape,
    panel,
    at_once,
    chunks,
    out,
):
    """Multiply tiles with a weight, the mean of a window's real cells in place of its missing sites.

    Args:
        values: (R, C); NaN only in rows that `row_of` does not name.
        place: int64 (P,), the row in `values` of each row; empty if they are the same.
        row_of: int32 (N, D, H, W), the row of each site, P if it counts as zeros, P + 1 if it is missing.
        rows: P.
        goal_of: int32 (N, d, h, w), the row of each window, M or more where it is not wanted.
        tiles: int64 (T,), numbers of the tiles; see `nansparse.compiled.tiles`.
        padding: int64 (3,), lower padding.
        some: Whether a kept window misses sites.
        summed: Whether every row is summed once, else each where it is needed.
        taps: (O, C, K), the weight, 9 cells for planes, 27 for volumes.
        bias: (O,); empty if there is none.
        shape: Which of `SHAPES` of the microkernel.
        panel: Its output channels.
        at_once: Its windows, here as many tiles.
        chunks: Parts in which threads take the tiles.
        out: (M, O), written.

    Returns:
        The sum of all results, NaN or infinite if one of them is.
    """
    width = values.shape[1]
    axes, cells, results, volume = (2, 16, 4, 9) if taps.shape[2] == 9 else (3, 64, 8, 27)
    panels = (out.shape[1] + panel - 1) // panel
    weight = np.empty((cells, panels, width, panel), np.float32)
    shares = np.empty((panels if some else 0, volume, panel), np.float32)
    constant = np.zeros(panels * panel, np.float32)
    constant[: bias.shape[0]] = bias
    for p in prange(panels):
        transform_panel(taps, p, panel, weight, shares, some)
    sums = sum_sites(values, place, row_of.reshape(-1), rows) if summed else np.zeros(0, np.float32)
    checks = np.empty(chunks, np.float32)
    count, kept, row = tiles.shape[0], out.shape[0], width * 4
    block = min(BLOCK, NEAR // (cells * row), count // chunks + at_once)
    block = max(1, block // at_once) * at_once
    # Tiles at distances of a power of two would all fall on the same few places of the nearest cache.
    apart = (cells * width + 31) // 32 * 32 + 16
    base, packed, constants = values.ctypes.data, weight.ctypes.data, constant.ctypes.data
    laid, sharing, laid_out = out.ctypes.data, shares.ctypes.data, place.shape[0] > 0
    for chunk in prange(chunks):
        zeros, turned = np.zeros(width, np.float32), np.zeros((block, apart), np.float32)
        products = np.empty((cells, block, panel), np.float32)
        near = np.empty((block * results, panel), np.float32)
        read, reads = np.empty((block, cells), np.int32), np.empty((block, cells), np.int64)
        goals, targets = np.empty((block, results), np.int32), np.empty((block, results), np.int64)
        totals, missing = np.empty((block, cells), np.float32), np.empty((block, cells), np.float32)
        lines, holed = np.empty((cells, block), np.int64), np.zeros(block, np.int64)
        means = np.empty((block, results), np.float32)
        # Asked once: each array that is asked is counted by all threads.
        turning, multiplied, nearing = turned.ctypes.data, products.ctypes.data, near.ctypes.data
        nothing, reading, lying = zeros.ctypes.data, reads.ctypes.data, lines.ctypes.data
        aiming, lacking, filling = targets.ctypes.data, missing.ctypes.data, means.ctypes.data
        for f in range(cells):
            for i in range(block):
                lines[f, i] = turning + (i * apart + f * width) * 4
        begin, end = count * chunk // chunks, count * (chunk + 1) // chunks
        check = np.float32(0)
        for start in range(begin, end, block):
            live = min(block, end - start)
            find_tiles(
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
            )
            if some:
                find_fills(values, place, summed, rows, live, read, holed, totals, missing, means)
            for i in range(live):
                transform_cells(axes, reading + i * cells * 8, 1, lines[0, i], width, width)
            for p in range(panels):
                for f in range(cells):
                    part = packed + (f * panels + p) * panel * row
                    for i in range(0, live, at_once):
                        held = multiplied + (i * cells + f * at_once) * panel * 4
                        accumulate(shape, held, lying + (f * block + i) * 8, block, part, 1, width, 1)
                last = min(panel, out.shape[1] - p * panel)
                whole, shared = last == panel, sharing + p * volume * panel * 4
                for i in range(live):
                    for e in range(results):
                        away = whole and goals[i, e] < kept
                        targets[i, e] = nearing + (i * results + e) * panel * 4
                        if away:
                            targets[i, e] = laid + (goals[i, e] * out.shape[1] + p * panel) * 4
                    held = multiplied + (i // at_once * at_once * cells + i % at_once) * panel * 4
                    check += transform_products(
                        axes,
                        held,
                        at_once * panel,
                        constants + p * panel * 4,
                        aiming + i * results * 8,
                        panel,
                        holed[i],
                        lacking + i * cells * 4,
                        filling + i * results * 4,
                        shared,
                    )
                if not whole:
                    check += copy_results(
                        near, nearing, goals, live, kept, p * panel, last, out.shape[1], laid
                    )
        checks[chunk] = check + held_until_here((zeros, turned, products, near, lines, missing, means))
    return checks.sum() + held_until_here((weight, shares, constant))
