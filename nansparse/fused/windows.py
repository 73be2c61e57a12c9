"""Where windows read, and how many NaN cells each of them holds, as Triton kernels.

Planes are volumes of depth 1. Windows and sites are numbered row-major over (sample, *axes).
"""

# Triton has no types, and what arguments are is said where they are named.
# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def coordinates(number, size_h, size_w, size_d):
    """Split site numbers into sample and place: four vectors."""
    w = number % size_w
    rest = number // size_w
    h = rest % size_h
    rest = rest // size_h
    return rest // size_d, rest % size_d, h, w


@triton.jit
def along(
    out,
    tap,
    size,
    stride: tl.constexpr,
    padding: tl.constexpr,
    dilation: tl.constexpr,
    transposed: tl.constexpr,
):
    """Find what outputs read through one kernel position along one axis: the place, and whether it is one."""
    if transposed:
        reach = out + padding - tap * dilation
        place = reach // stride
        inside = (reach >= 0) & (reach - place * stride == 0) & (place < size)
    else:
        place = out * stride - padding + tap * dilation
        inside = (place >= 0) & (place < size)
    return place, inside


@triton.jit
def locate(
    tap,
    sample,
    d,
    h,
    w,
    live,
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
):
    """Find what windows read through one kernel position: the site, and whether it is one."""
    tap_w = tap % kernel_w
    tap_h = tap // kernel_w % kernel_h
    tap_d = tap // (kernel_w * kernel_h)
    at_d, in_d = along(d, tap_d, grid_d, stride_d, padding_d, dilation_d, transposed)
    at_h, in_h = along(h, tap_h, grid_h, stride_h, padding_h, dilation_h, transposed)
    at_w, in_w = along(w, tap_w, grid_w, stride_w, padding_w, dilation_w, transposed)
    return ((sample * grid_d + at_d) * grid_h + at_h) * grid_w + at_w, live & in_d & in_h & in_w


@triton.jit(
    do_not_specialize=["windows", "sites", "limit", "out_d", "out_h", "out_w", "grid_d", "grid_h", "grid_w"]
)
def count_windows(
    rows,  # int32, row of each site, or NaN cells of each site if `counted`
    counts,  # int32 a window, written
    keep,  # int8 a window, written: whether it has fewer NaN cells than the limit
    windows,
    sites,  # rows there are; a row number from there on stands for a missing site
    limit,
    out_d,
    out_h,
    out_w,
    grid_d,
    grid_h,
    grid_w,
    counted: tl.constexpr,
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
    at_once: tl.constexpr,
):
    """Count the NaN cells of every window of an ordinary convolution."""
    number = tl.program_id(0) * at_once + tl.arange(0, at_once)
    live = number < windows
    sample, d, h, w = coordinates(number, out_h, out_w, out_d)
    count = tl.zeros((at_once,), dtype=tl.int32)
    for tap in range(kernel_d * kernel_h * kernel_w):
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
            False,
        )
        found = tl.load(rows + site, mask=inside, other=0)
        count += found if counted else (inside & (found >= sites)).to(tl.int32)
    tl.store(counts + number, count, mask=live)
    tl.store(keep + number, (count < limit).to(tl.int8), mask=live)
