"""The transforms of Winograd's minimal filtering, F(2 x 2, 3 x 3) and F(2 x 2 x 2, 3 x 3 x 3), by vectors.

Results that lie in a square take 16 multiplications in place of 36, those in a cube 64 in place of 216: with
the matrices of A. Lavin and S. Gray ("Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section
4.1), applied along each axis, they are A^T [(G g G^T) * (B^T d B)] A, where d are the 4 x 4 (x 4) cells that
they read and g is the kernel. Here are B^T d B and A^T m A for a vector of channels at a time, written as
LLVM instructions as the microkernel is: numba's own loops become no vectors where so many arrays meet.
"""

# numba and llvmlite have no types.
# mypy: disable-error-code="no-untyped-def"

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nansparse.compiled.microkernel import LANES

# Cells of a tile along an axis, and its results.
SIDE, STEP = 4, 2
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)


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
            target = builder.inttoptr(out, _F32.as_pointer())

            def transform(channel, kind):
                tile = [_load(builder, cell, channel, kind) for cell in cells]
                for k, value in enumerate(_along_axes(builder, tile, rank, _spread)):
                    _store(builder, value, target, builder.add(builder.mul(_number(k), step), channel), kind)

            _each_channel(builder, channels, transform)

        _either(builder, axes, write)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def transform_products(_typing, axes, products, step, bias, goals, pitch, channels):
    """Write A^T m A of one tile, plus a bias: its results.

    All but `axes` are addresses or numbers, int64.

    Args:
        _typing: numba's own.
        axes: 2 or 3; the tile has 4 cells and 2 results along each.
        products: Address of float32 (cells, step), the first channels of each line read.
        step: See `products`.
        bias: Address of float32 (channels,).
        goals: Address of int64 (results, pitch), the first of each line the address of float32 (channels,),
            written.
        pitch: See `goals`.
        channels: Their number, a multiple of `LANES`.

    Returns:
        The sum of all that was written, float32.
    """
    signature = types.float32(*[types.int64] * 7)
    del axes, products, step, bias, goals, pitch, channels

    def generate(_context, builder, _signature, arguments):
        axes, products, step, bias, goals, pitch, channels = arguments
        source, added = (builder.inttoptr(a, _F32.as_pointer()) for a in (products, bias))
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * LANES))

        def write(rank):
            targets = _addresses(builder, goals, pitch, STEP**rank)
            with _steps(builder, channels) as (channel, _):
                places = [builder.add(builder.mul(_number(k), step), channel) for k in range(SIDE**rank)]
                tile = [_load(builder, source, place, _VECTOR) for place in places]
                constant = _load(builder, added, channel, _VECTOR)
                for target, value in zip(targets, _along_axes(builder, tile, rank, _gather), strict=True):
                    result = builder.fadd(value, constant)
                    _store(builder, result, target, channel, _VECTOR)
                    builder.store(builder.fadd(builder.load(total), result), total)

        _either(builder, axes, write)
        lanes = builder.load(total)
        held = [builder.extract_element(lanes, ir.Constant(_I32, k)) for k in range(LANES)]
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
        places = [builder.inttoptr(a, _F32.as_pointer()) for a in (target, source)]
        cgutils.raw_memcpy(builder, places[0], places[1], channels, 4)
        return context.get_dummy_value()

    return signature, generate


def _along_axes(builder, tile, rank, transform):
    """Apply a transform of lines of four along each axis of a tile (flat, row-major), the last axis first."""
    sizes = [SIDE] * rank
    for axis in reversed(range(rank)):
        behind = 1
        for size in sizes[axis + 1 :]:
            behind *= size
        lines: dict[tuple[int, int], list[ir.Value]] = {}
        for k, value in enumerate(tile):
            lines.setdefault((k // (behind * SIDE), k % behind), []).append(value)
        done = {place: transform(builder, line) for place, line in lines.items()}
        sizes[axis] = len(next(iter(done.values())))
        blocks = len(tile) // (behind * SIDE)
        tile = [done[i, j][k] for i in range(blocks) for k in range(sizes[axis]) for j in range(behind)]
    return tile


def _spread(b, d):
    """B^T d."""
    return b.fsub(d[0], d[2]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[1], d[3])


def _gather(b, m):
    """A^T m."""
    return b.fadd(b.fadd(m[0], m[1]), m[2]), b.fsub(b.fsub(m[1], m[2]), m[3])


def _either(builder, axes, write):
    """Write the instructions for a plane and for a volume, and choose between them."""
    with builder.if_else(builder.icmp_signed("==", axes, _number(2))) as (plane, volume):
        with plane:
            write(2)
        with volume:
            write(3)


def _steps(builder, channels):
    return cgutils.for_range_slice(builder, _number(0), channels, _number(LANES), intp=_I64, inc=True)


def _each_channel(builder, channels, transform):
    """Pass over channels by vectors, the last overlapping the one before; one by one if they are few."""
    with builder.if_else(builder.icmp_signed(">=", channels, _number(LANES))) as (vectors, single):
        with vectors:
            last = builder.sub(channels, _number(LANES))
            with _steps(builder, channels) as (channel, _):
                transform(builder.select(builder.icmp_signed("<", channel, last), channel, last), _VECTOR)
        with single, cgutils.for_range(builder, channels) as channel:
            transform(channel.index, _F32)


def _addresses(builder, lines, pitch, count):
    table = builder.inttoptr(lines, _I64.as_pointer())
    places = [builder.gep(table, [builder.mul(_number(k), pitch)]) for k in range(count)]
    return [builder.inttoptr(builder.load(place), _F32.as_pointer()) for place in places]


def _load(builder, base, offset, kind):
    return builder.load(builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()), align=4)


def _store(builder, value, base, offset, kind):
    builder.store(value, builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()), align=4)


def _number(value):
    return ir.Constant(_I64, value)
