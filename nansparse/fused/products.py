"""The product of kept windows with the weight, the mean in place of NaN, as one Triton kernel.

A program computes a tile of (windows, output channels). It looks up which rows the windows read, multiplies
what is there, and only where a window of the tile holds NaN goes over the kernel positions once more.
"""

# Triton has no types, and what arguments are is said where they are named.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl

from nansparse.fused.windows import coordinates, locate


@triton.jit
def read(
    tap,
    sample,
    d,
    h,
    w,
    live,
    rows,
    sites,
    grid_d,
    grid_h,
    grid_w,
    kernel_h: tl.constexpr,
    kernel_w: tl.constexpr,
    stride_d: tl.constexpr,
    stride_h: tl.constexpr,
    stride_w: tl.constexpr,
    padding_d: tl.constexpr,
    padding_h: tl.constexpr,
    padding_w: tl.constexpr,
    dilation_d: tl.constexpr,
    dilation_h: tl.constexpr,
    dilation_w: tl.constexpr,
    transposed: tl.constexpr,
    complete: tl.constexpr,
    laid_out: tl.constexpr,
):
    """Look up the rows that windows read through a kernel position: row, whether it is there, or missing."""
    site, inside = locate(
        tap,
        sample,
        d,
        h,
        w,
        live,
        grid_d,
        grid_h,
        grid_w,
        kernel_h,
        kernel_w,
        stride_d,
        stride_h,
        stride_w,
        padding_d,
        padding_h,
        padding_w,
        dilation_d,
        dilation_h,
        dilation_w,
        transposed,
    )
    if complete:
        return site, inside, inside & (site < 0)
    found = tl.load(rows + site, mask=inside, other=0)
    there = inside & (found < sites)
    return site if laid_out else found, there, inside & (found >= sites)


@triton.jit(do_not_specialize=["windows", "sites", "out_d", "out_h", "out_w", "grid_d", "grid_h", "grid_w"])
def multiply_windows(
    values,  # (rows, channels)
    rows,  # int32, row of each site
    numbers,  # int64, which windows; not read if all of them
    sums,  # float32, sum of the real cells of each row; not read without `fill`
    nan_cells,  # int32 a window; not read without `fill`
    cells,  # int32 a window; not read unless transposed
    weight,  # (kernel positions, channels, outputs)
    shares,  # float32 (kernel positions, outputs), sums of the weight over channels
    bias,
    out,  # (windows, outputs), written
    windows,
    sites,
    out_d,
    out_h,
    out_w,
    grid_d,
    grid_h,
    grid_w,
    channels: tl.constexpr,
    outputs: tl.constexpr,
    fill: tl.constexpr,  # whether a window may hold NaN
    partial: tl.constexpr,  # whether a row may
    biased: tl.constexpr,
    listed: tl.constexpr,
    complete: tl.constexpr,
    laid_out: tl.constexpr,
    transposed: tl.constexpr,
    tf32: tl.constexpr,
    kernel_d: tl.constexpr,
    kernel_h: tl.constexpr,
    kernel_w: tl.constexpr,
    stride_d: tl.constexpr,
    stride_h: tl.constexpr,
    stride_w: tl.constexpr,
    padding_d: tl.constexpr,
    padding_h: tl.constexpr,
    padding_w: tl.constexpr,
    dilation_d: tl.constexpr,
    dilation_h: tl.constexpr,
    dilation_w: tl.constexpr,
    tile_windows: tl.constexpr,
    tile_outputs: tl.constexpr,
    tile_channels: tl.constexpr,
):
    """Multiply kept windows."""
    volume: tl.constexpr = kernel_d * kernel_h * kernel_w
    pieces: tl.constexpr = (channels + tile_channels - 1) // tile_channels
    precision: tl.constexpr = "tf32" if tf32 else "ieee"
    at = tl.program_id(0) * tile_windows + tl.arange(0, tile_windows)
    live = at < windows
    number = tl.load(numbers + at, mask=live, other=0).to(tl.int32) if listed else at
    sample, d, h, w = coordinates(number, out_h, out_w, out_d)
    n = tl.program_id(1) * tile_outputs + tl.arange(0, tile_outputs)
    wanted = n < outputs
    acc = tl.zeros((tile_windows, tile_outputs), dtype=tl.float32)
    filled = tl.zeros((tile_windows, tile_outputs), dtype=tl.float32)
    for step in range(volume * pieces):
        tap = step // pieces
        c = step % pieces * tile_channels + tl.arange(0, tile_channels)
        row, there, missing = read(
            tap,
            sample,
            d,
            h,
            w,
            live,
            rows,
            sites,
            grid_d,
            grid_h,
            grid_w,
            kernel_h,
            kernel_w,
            stride_d,
            stride_h,
            stride_w,
            padding_d,
            padding_h,
            padding_w,
            dilation_d,
            dilation_h,
            dilation_w,
            transposed,
            complete,
            laid_out,
        )
        real = c < channels
        x = tl.load(
            values + row.to(tl.int64)[:, None] * channels + c[None, :],
            mask=there[:, None] & real[None, :],
            other=0.0,
        )
        place = weight + (tap * channels + c)[:, None] * outputs + n[None, :]
        if channels % tile_channels == 0 and outputs % tile_outputs == 0:
            part = tl.load(place)
        else:
            part = tl.load(place, mask=real[:, None] & wanted[None, :], other=0.0)
        if partial:
            hole = (x != x) | missing[:, None]
            filled = tl.dot(hole.to(x.dtype), part, filled, input_precision=precision)
            x = tl.where(x != x, 0.0, x)
        acc = tl.dot(x, part, acc, input_precision=precision)
    if fill:
        nan = tl.load(nan_cells + at, mask=live, other=0)
        if tl.max(nan) > 0:
            total = tl.zeros((tile_windows,), dtype=tl.float32)
            for tap in range(volume):
                row, there, missing = read(
                    tap,
                    sample,
                    d,
                    h,
                    w,
                    live,
                    rows,
                    sites,
                    grid_d,
                    grid_h,
                    grid_w,
                    kernel_h,
                    kernel_w,
                    stride_d,
                    stride_h,
                    stride_w,
                    padding_d,
                    padding_h,
                    padding_w,
                    dilation_d,
                    dilation_h,
                    dilation_w,
                    transposed,
                    complete,
                    laid_out,
                )
                total += tl.load(sums + row, mask=there, other=0.0)
                if not partial:
                    share = tl.load(shares + tap * outputs + n, mask=wanted, other=0.0)
                    filled += missing[:, None].to(tl.float32) * share[None, :]
            size = (
                tl.load(cells + at, mask=live, other=1)
                if transposed
                else volume * (channels if partial else 1)
            )
            count = (size - nan) * (1 if partial else channels)
            mean = total / count.to(tl.float32)
            acc += tl.where((nan > 0)[:, None], mean[:, None] * filled, 0.0)
    if biased:
        acc += tl.load(bias + n, mask=wanted, other=0.0).to(tl.float32)[None, :]
    place = out + at.to(tl.int64)[:, None] * outputs + n[None, :]
    tl.store(place, acc.to(out.dtype.element_ty), mask=live[:, None] & wanted[None, :])
