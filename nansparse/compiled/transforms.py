"""The transforms of Winograd's minimal filtering, F(2 x 2, 3 x 3) and F(2 x 2 x 2, 3 x 3 x 3), by vectors.

Results that lie in a square take 16 multiplications in place of 36, those in a cube 64 in place of 216: with
the matrices of A. Lavin and S. Gray ("Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section
4.1), applied along each axis, they are A^T [(G g G^T) * (B^T d B)] A, where d are the 4 x 4 (x 4) cells that
they read and g is the kernel. Here are the three transforms for a vector of channels at a time, written as
LLVM instructions as the microkernel is: numba's own loops become no vectors where so many arrays meet.
"""

# numba and llvmlite have no types.
# mypy: disable-error-code="no-untyped-def"

from itertools import product

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nansparse.compiled.matrices import SIDE, STEP, TAPS, along_axes, either, gather, shape, spread
from nansparse.compiled.microkernel import LANES
from nansparse.compiled.vectors import (
    F32,
    I32,
    I64,
    VECTOR,
    ZEROS,
    everywhere,
    load,
    multiply_add,
    number,
    pointer,
    store,
)


@intrinsic
def transform_cells(_typing, axes, reads, pitch, out, step, channels):
    """Write B^T d B of one tile.

    All but `axes` are addresses or numbers, int64.

    Args:
        _typing: numba's own.
        axes: 2 or 3; the tile has 4 cells along each.
        reads: Address of int64 (cells, pitch), the first of each line the address of a cell's channels.
        pitch: See `reads`.
        out: Address of float32 (cells, step), the first channels of each line written.
        step: See `out`.
        channels: Their number.

    Returns:
        What numba wants to know of it.
    """
    signature = types.void(*[types.int64] * 6)
    del axes, reads, pitch, out, step, channels

    def generate(context, builder, _signature, arguments):
        axes, reads, pitch, out, step, channels = arguments

        def write(rank):
            cells = _addresses(builder, reads, pitch, SIDE**rank)
            target = pointer(builder, out)

            def transform(channel, kind):
                tile = [load(builder, cell, channel, kind) for cell in cells]
                for k, value in enumerate(along_axes(builder, tile, rank, spread)):
                    store(builder, value, target, builder.add(builder.mul(number(k), step), channel), kind)

            _each_channel(builder, channels, transform)

        either(builder, axes, write)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transform_taps(_typing, axes, taps, out, step, channels):
    """Write G g G^T of a kernel for some output channels.

    All but `axes` are addresses or numbers, int64.

    Args:
        _typing: numba's own.
        axes: 2 or 3; the kernel has 3 cells along each, and a tile 4.
        taps: Address of float32 (3 ** axes, channels), read.
        out: Address of float32 (cells, step), the first channels of each line written.
        step: See `out`.
        channels: Their number, a multiple of `LANES`.

    Returns:
        What numba wants to know of it.
    """
    signature = types.void(*[types.int64] * 5)
    del axes, taps, out, step, channels

    def generate(context, builder, _signature, arguments):
        axes, taps, out, step, channels = arguments
        source, target = pointer(builder, taps), pointer(builder, out)

        def write(rank):
            with _steps(builder, channels) as (channel, _):
                places = [builder.add(builder.mul(number(k), channels), channel) for k in range(TAPS**rank)]
                kernel = [load(builder, source, place, VECTOR) for place in places]
                for k, value in enumerate(along_axes(builder, kernel, rank, shape, TAPS)):
                    store(builder, value, target, builder.add(builder.mul(number(k), step), channel), VECTOR)

        either(builder, axes, write)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transform_products(_typing, axes, products, step, bias, goals, channels, holed, missing, means, shares):
    """Write A^T m A of one tile, plus a bias and the mean in place of missing cells: its results.

    All but `axes` are addresses or numbers, int64.

    Args:
        _typing: numba's own.
        axes: 2 or 3; the tile has 4 cells and 2 results along each.
        products: Address of float32 (cells, step), the first channels of each line read.
        step: See `products`.
        bias: Address of float32 (channels,).
        goals: Address of int64 (results,), each the address of float32 (channels,), written.
        channels: Their number, a multiple of `LANES`.
        holed: 0 where no cell is missing; then none of the others is read.
        missing: Address of float32 (cells,), 1 at missing cells, else 0.
        means: Address of float32 (results,), what stands in their place.
        shares: Address of float32 (3 ** axes, channels), what a cell of 1 in all input channels adds.

    Returns:
        The sum of all that was written, float32.
    """
    signature = types.float32(*[types.int64] * 10)
    del axes, products, step, bias, goals, channels, holed, missing, means, shares

    def generate(_context, builder, _signature, arguments):
        axes, products, step, bias, goals, channels, holed, *fills = arguments
        source, added, *fills = (pointer(builder, a) for a in (products, bias, *fills))
        total = cgutils.alloca_once_value(builder, ZEROS)

        def write(rank):
            targets = _addresses(builder, goals, number(1), STEP**rank)

            def finish(results, channel):
                for target, result in zip(targets, results, strict=True):
                    store(builder, result, target, channel, VECTOR)
                    builder.store(builder.fadd(builder.load(total), result), total)

            with _steps(builder, channels) as (channel, _):
                places = [builder.add(builder.mul(number(k), step), channel) for k in range(SIDE**rank)]
                tile = [load(builder, source, place, VECTOR) for place in places]
                constant = load(builder, added, channel, VECTOR)
                results = [builder.fadd(v, constant) for v in along_axes(builder, tile, rank, gather)]
                with builder.if_else(builder.icmp_signed("!=", holed, number(0))) as (some, none):
                    with some:
                        finish(_filled(builder, results, rank, channel, channels, *fills), channel)
                    with none:
                        finish(results, channel)

        either(builder, axes, write)
        lanes = builder.load(total)
        held = [builder.extract_element(lanes, ir.Constant(I32, k)) for k in range(LANES)]
        while len(held) > 1:
            held = [builder.fadd(a, b) for a, b in zip(held[::2], held[1::2], strict=True)]
        return held[0]

    return signature, generate


@intrinsic
def copy_channels(_typing, source, target, channels):
    """Copy float32 numbers.

    Args:
        _typing: numba's own.
        source: Their address, int64.
        target: Address of as much room.
        channels: Their number.

    Returns:
        What numba wants to know of it.
    """
    signature = types.void(*[types.int64] * 3)
    del source, target, channels

    def generate(context, builder, _signature, arguments):
        source, target, channels = arguments
        places = [pointer(builder, a) for a in (target, source)]
        cgutils.raw_memcpy(builder, places[0], places[1], channels, 4)
        return context.get_dummy_value()

    return signature, generate


def _filled(builder, results, rank, channel, channels, missing, means, shares):
    """Add to results what the means contribute: mean times the shares of the cells that it stands for."""
    read = [ZEROS] * len(results)
    for k, cell in enumerate(product(range(TAPS), repeat=rank)):
        share = load(builder, shares, builder.add(builder.mul(number(k), channels), channel), VECTOR)
        for e, result in enumerate(product(range(STEP), repeat=rank)):
            at = 0
            for along, away in zip(cell, result, strict=True):
                at = at * SIDE + along + away
            read[e] = multiply_add(builder, everywhere(builder, missing, at), share, read[e])
    return [
        multiply_add(builder, everywhere(builder, means, e), part, result)
        for e, (part, result) in enumerate(zip(read, results, strict=True))
    ]


def _steps(builder, channels):
    return cgutils.for_range_slice(builder, number(0), channels, number(LANES), intp=I64, inc=True)


def _each_channel(builder, channels, transform):
    """Pass over channels by vectors, the last overlapping the one before; one by one if they are few."""
    with builder.if_else(builder.icmp_signed(">=", channels, number(LANES))) as (vectors, single):
        with vectors:
            last = builder.sub(channels, number(LANES))
            with _steps(builder, channels) as (channel, _):
                transform(builder.select(builder.icmp_signed("<", channel, last), channel, last), VECTOR)
        with single, cgutils.for_range(builder, channels) as channel:
            transform(channel.index, F32)


def _addresses(builder, lines, pitch, count):
    table = builder.inttoptr(lines, I64.as_pointer())
    places = [builder.gep(table, [builder.mul(number(k), pitch)]) for k in range(count)]
    return [builder.inttoptr(builder.load(place), F32.as_pointer()) for place in places]
