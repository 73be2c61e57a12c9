"""The transforms of Winograd's minimal filtering, F(2 x 2, 3 x 3) and F(2 x 2 x 2, 3 x 3 x 3), by vectors.

Results that lie in a square take 16 multiplications in place of 36, those in a cube 64 in place of 216: with
the matrices of A. Lavin and S. Gray ("Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section
4.1), applied along each axis, they are A^T [(G g G^T) * (B^T d B)] A, where d are the 4 x 4 (x 4) cells that
they read and g is the kernel. Here are B^T d B and A^T m A for a vector of channels at a time, written as
LLVM instructions as the microkernel is: numba's own loops become no vectors where so many arrays meet.
"""

# numba and llvmlite have no types.
# mypy: disable-error-code="no-untyped-def"

from itertools import product

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nansparse.compiled.microkernel import LANES

# Cells of a tile along an axis, and its results.
SIDE, STEP = 4, 2
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)
_LANE = ir.Constant(_I32, 0)


@intrinsic
def find_line(_typing, numbers, first, laid_out, base, row, rows, nothing, copies, places):
    """Note where the four cells of a line of a tile lie.

    All are addresses or numbers, int64.

    Args:
        _typing: numba's own.
        numbers: Address of int32 (4,), the row of each cell, `rows` or more where there is none.
        first: The number of the first cell on the grid.
        laid_out: 1 if rows lie on the grid, 0 if row by row.
        base: Address of the rows.
        row: Bytes of a row.
        rows: Their number, less than 2^31.
        nothing: Address of a row of zeros.
        copies: Address of int32 (4,), written: the numbers.
        places: Address of int64 (4,), written: the address of each row, `nothing` where there is none.

    Returns:
        What numba wants to know of it.
    """
    signature = types.void(*[types.int64] * 9)
    del numbers, first, laid_out, base, row, rows, nothing, copies, places

    def generate(context, builder, _signature, arguments):
        four, wide = ir.VectorType(_I32, SIDE), ir.VectorType(_I64, SIDE)
        numbers, first, laid_out, base, row, rows, nothing, copies, places = arguments

        def splat(number, kind=_I64):
            vector = builder.insert_element(
                ir.Constant(ir.VectorType(kind, SIDE), ir.Undefined), number, _LANE
            )
            lanes = ir.Constant(ir.VectorType(_I32, SIDE), [0] * SIDE)
            return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), lanes)

        # What fits into 32 bits is multiplied at once; LLVM sees that by these masks.
        low = ir.Constant(wide, [0xFFFFFFFF] * SIDE)
        found = builder.load(builder.inttoptr(numbers, four.as_pointer()), align=4)
        beside = builder.add(splat(first), ir.Constant(wide, list(range(SIDE))))
        asked = splat(builder.icmp_signed("!=", laid_out, _number(0)), ir.IntType(1))
        there = builder.and_(builder.select(asked, beside, builder.zext(found, wide)), low)
        address = builder.add(splat(base), builder.mul(there, builder.and_(splat(row), low)))
        exists = builder.icmp_signed("<", found, splat(builder.trunc(rows, _I32), _I32))
        builder.store(found, builder.inttoptr(copies, four.as_pointer()), align=4)
        place = builder.inttoptr(places, wide.as_pointer())
        builder.store(builder.select(exists, address, splat(nothing)), place, align=8)
        return context.get_dummy_value()

    return signature, generate


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
        source, added, *fills = (builder.inttoptr(a, _F32.as_pointer()) for a in (products, bias, *fills))
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * LANES))

        def write(rank):
            targets = _addresses(builder, goals, _number(1), STEP**rank)

            def finish(results, channel):
                for target, result in zip(targets, results, strict=True):
                    _store(builder, result, target, channel, _VECTOR)
                    builder.store(builder.fadd(builder.load(total), result), total)

            with _steps(builder, channels) as (channel, _):
                places = [builder.add(builder.mul(_number(k), step), channel) for k in range(SIDE**rank)]
                tile = [_load(builder, source, place, _VECTOR) for place in places]
                constant = _load(builder, added, channel, _VECTOR)
                results = [builder.fadd(v, constant) for v in _along_axes(builder, tile, rank, _gather)]
                with builder.if_else(builder.icmp_signed("!=", holed, _number(0))) as (some, none):
                    with some:
                        finish(_filled(builder, results, rank, channel, channels, *fills), channel)
                    with none:
                        finish(results, channel)

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


def _filled(builder, results, rank, channel, channels, missing, means, shares):
    """Add to results what the means contribute: mean times the shares of the cells that it stands for."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
    read = [ir.Constant(_VECTOR, [0.0] * LANES)] * len(results)
    for k, cell in enumerate(product(range(SIDE - STEP + 1), repeat=rank)):
        share = _load(builder, shares, builder.add(builder.mul(_number(k), channels), channel), _VECTOR)
        for e, result in enumerate(product(range(STEP), repeat=rank)):
            at = 0
            for along, away in zip(cell, result, strict=True):
                at = at * SIDE + along + away
            read[e] = builder.call(multiply_add, [_everywhere(builder, missing, at), share, read[e]])
    return [
        builder.call(multiply_add, [_everywhere(builder, means, e), part, result])
        for e, (part, result) in enumerate(zip(read, results, strict=True))
    ]


def _everywhere(builder, base, number):
    """Load one number into all lanes of a vector."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    lanes = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    value = builder.load(builder.gep(base, [_number(number)]))
    return builder.shuffle_vector(builder.insert_element(undefined, value, _LANE), undefined, lanes)


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
