"""Pooling windows that tile the grid, as Triton kernels: maxima, ties, and the way back.

What they compute is stated in `nansparse.ties` and `nansparse.unpooling`; windows have at most eight cells,
whose ties are the bits of one byte. Planes are volumes of depth 1.
"""

# Triton has no types, and what arguments are is said where they are named.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from nansparse.fused.windows import coordinates


@triton.jit(do_not_specialize=["cells", "sites", "out_d", "out_h", "out_w", "grid_d", "grid_h", "grid_w"])
def pool_cells(
    values,  # float32 (rows, channels)
    rows,  # int32, row of each site; not read if `complete`
    numbers,  # int64, which windows; not read unless `listed`
    best,  # float32 (windows, channels), written
    codes,  # uint8, written
    unstable,  # uint8, written
    winner,  # uint8, written
    flags,  # int32 (3,), zeros; written: a window is unstable, reads NaN, reads infinity
    cells,
    sites,
    epsilon,
    least,
    max_ties,
    out_d,
    out_h,
    out_w,
    grid_d,
    grid_h,
    grid_w,
    channels: tl.constexpr,
    kernel_d: tl.constexpr,
    kernel_h: tl.constexpr,
    kernel_w: tl.constexpr,
    listed: tl.constexpr,
    complete: tl.constexpr,
    laid_out: tl.constexpr,
    at_once: tl.constexpr,
):
    """Find maximum, winner and ties of windows, channel by channel."""
    volume: tl.constexpr = kernel_d * kernel_h * kernel_w
    cell = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    live = cell < cells
    window = cell // channels
    c = cell - window * channels
    number = tl.load(numbers + window, mask=live, other=0) if listed else window
    sample, d, h, w = coordinates(number, out_h, out_w, out_d)
    start = ((sample * grid_d + d * kernel_d) * grid_h + h * kernel_h) * grid_w + w * kernel_w
    lowest = float("-inf")
    top = tl.full((at_once,), lowest, dtype=tl.float32)
    for k in tl.static_range(volume):
        site = (
            start + (k // (kernel_h * kernel_w) * grid_h + k // kernel_w % kernel_h) * grid_w + k % kernel_w
        )
        found = site if complete else tl.load(rows + site, mask=live, other=0)
        there = live if complete else live & (found < sites)
        row = site if laid_out else found
        v = tl.load(values + row.to(tl.int64) * channels + c, mask=there, other=lowest)
        top = tl.where(v > top, v, top)  # a comparison with NaN is false
    # The arithmetic of torch.isclose.
    near = tl.abs(top * epsilon) + least
    tied = tl.zeros((at_once,), dtype=tl.int32)
    equal = tl.zeros((at_once,), dtype=tl.int32)
    count = tl.zeros((at_once,), dtype=tl.int32)
    nan = tl.zeros((at_once,), dtype=tl.int32)
    infinite = tl.zeros((at_once,), dtype=tl.int32)
    for k in tl.static_range(volume):
        site = (
            start + (k // (kernel_h * kernel_w) * grid_h + k // kernel_w % kernel_h) * grid_w + k % kernel_w
        )
        found = site if complete else tl.load(rows + site, mask=live, other=0)
        there = live if complete else live & (found < sites)
        row = site if laid_out else found
        v = tl.load(values + row.to(tl.int64) * channels + c, mask=there, other=lowest)
        close = (there & (top - v <= near)).to(tl.int32)
        tied += close << k
        count += close
        equal += (there & (top == v)).to(tl.int32) << k
        nan |= (there & (v != v)).to(tl.int32)
        infinite |= (there & (tl.abs(v) == float("inf"))).to(tl.int32)
    many = (count > max_ties).to(tl.int32)
    first = equal & -equal
    first = tl.where(first > 0, first, 1)
    tl.store(best + cell, top, mask=live)
    tl.store(codes + cell, (tied * many).to(tl.uint8), mask=live)
    tl.store(unstable + cell, many.to(tl.uint8), mask=live)
    tl.store(winner + cell, first.to(tl.uint8), mask=live)
    # Programs only ever write ones.
    tl.store(flags, 1, mask=tl.max(many * live.to(tl.int32)) > 0)
    tl.store(flags + 1, 1, mask=tl.max(nan) > 0)
    tl.store(flags + 2, 1, mask=tl.max(infinite) > 0)


@triton.jit(do_not_specialize=["cells", "out_d", "out_h", "out_w", "grid_d", "grid_h", "grid_w"])
def list_places(
    window,  # int32 a cell of the grid, written: the window it is in
    bit,  # uint8 a cell, written: its bit there; 0 if it is in none
    cells,
    out_d,
    out_h,
    out_w,
    grid_d,
    grid_h,
    grid_w,
    kernel_d: tl.constexpr,
    kernel_h: tl.constexpr,
    kernel_w: tl.constexpr,
    at_once: tl.constexpr,
):
    """Say in which window each cell is, and where there."""
    cell = tl.program_id(0) * at_once + tl.arange(0, at_once)
    live = cell < cells
    sample, d, h, w = coordinates(cell, grid_h, grid_w, grid_d)
    at_d, at_h, at_w = d // kernel_d, h // kernel_h, w // kernel_w
    inside = (at_d < out_d) & (at_h < out_h) & (at_w < out_w)
    k = ((d - at_d * kernel_d) * kernel_h + h - at_h * kernel_h) * kernel_w + w - at_w * kernel_w
    at_d, at_h, at_w = tl.minimum(at_d, out_d - 1), tl.minimum(at_h, out_h - 1), tl.minimum(at_w, out_w - 1)
    tl.store(window + cell, ((sample * out_d + at_d) * out_h + at_h) * out_w + at_w, mask=live)
    place = tl.where(inside, tl.full((at_once,), 1, dtype=tl.int32) << k, 0)
    tl.store(bit + cell, place.to(tl.uint8), mask=live)


@triton.jit
def both(a, b):
    """AND two numbers."""
    return a & b


@triton.jit(do_not_specialize=["windows"])
def and_rows(codes, out, windows, channels: tl.constexpr, width: tl.constexpr, at_once: tl.constexpr):
    """AND the bytes of each row."""
    window = tl.program_id(0) * at_once + tl.arange(0, at_once)
    c = tl.arange(0, width)
    live = window < windows
    cell = window.to(tl.int64)[:, None] * channels + c[None, :]
    code = tl.load(codes + cell, mask=live[:, None] & (c < channels)[None, :], other=255)
    tl.store(out + window, tl.reduce(code.to(tl.int32), 1, both).to(tl.uint8), mask=live)


@triton.jit(do_not_specialize=["cells", "rows"])
def put_back(
    values,  # (R, channels), what is put back
    place,  # int64, where `values` has each row; not read unless `placed`
    row_of,  # int32, row of each window; not read if `complete`
    window,  # int32, window of each site
    bit,  # uint8, its bit there
    winner,  # uint8 (windows, channels)
    codes,  # uint8 (windows, channels), bits of the cells that are NaN; not read unless `coded`
    out,  # (sites, channels), written
    flag,  # int32 (1,), zero; written: some cell is NaN
    cells,
    rows,
    channels: tl.constexpr,
    placed: tl.constexpr,
    complete: tl.constexpr,
    coded: tl.constexpr,
    at_once: tl.constexpr,
):
    """Read an unpooled activation at some sites."""
    cell = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    live = cell < cells
    site = cell // channels
    c = cell - site * channels
    w = tl.load(window + site, mask=live, other=0).to(tl.int64)
    b = tl.load(bit + site, mask=live, other=0)
    won = live & (tl.load(winner + w * channels + c, mask=live, other=0) == b)
    row = w if complete else tl.load(row_of + w, mask=live, other=0).to(tl.int64)
    won = won & (row < rows)
    if placed:
        row = tl.load(place + row, mask=won, other=0)
    v = tl.load(values + row * channels + c, mask=won, other=0.0)
    if coded:
        gone = (tl.load(codes + w * channels + c, mask=live, other=0) & b) != 0
        v = tl.where(gone, float("nan"), v)
        tl.store(flag, 1, mask=tl.max(gone.to(tl.int32)) > 0)
    tl.store(out + cell, v, mask=live)
