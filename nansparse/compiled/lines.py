"""What tiles of windows read, by lines of four cells: where they lie, and what stands for missing ones.

Written as LLVM instructions, as `nansparse.compiled.transforms` is.
"""

# numba and llvmlite have no types.
# mypy: disable-error-code="no-untyped-def"

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nansparse.compiled.matrices import SIDE, either
from nansparse.compiled.vectors import F32, I32, I64, load, number, pointer, splat, store

_WIDE, _NUMBERS, _FOUR = (ir.VectorType(kind, SIDE) for kind in (I64, I32, F32))


@intrinsic
def find_line(_typing, numbers, first, laid_out, base, row, rows, nothing, copies, places, sums, totals):
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
        sums: Address of float32 (sites of the grid,), or 0.
        totals: Address of float32 (4,), written if there are sums: those of the four.

    Returns:
        What numba wants to know of it.
    """
    signature = types.void(*[types.int64] * 11)
    del numbers, first, laid_out, base, row, rows, nothing, copies, places, sums, totals

    def generate(context, builder, _signature, arguments):
        numbers, first, laid_out, base, row, rows, nothing, copies, places, sums, totals = arguments

        # What fits into 32 bits is multiplied at once; LLVM sees that by these masks.
        low = ir.Constant(_WIDE, [0xFFFFFFFF] * SIDE)
        found = builder.load(builder.inttoptr(numbers, _NUMBERS.as_pointer()), align=4)
        beside = builder.add(splat(builder, first, SIDE), ir.Constant(_WIDE, list(range(SIDE))))
        asked = splat(builder, builder.icmp_signed("!=", laid_out, number(0)), SIDE)
        there = builder.and_(builder.select(asked, beside, builder.zext(found, _WIDE)), low)
        shift = builder.mul(there, builder.and_(splat(builder, row, SIDE), low))
        address = builder.add(splat(builder, base, SIDE), shift)
        exists = builder.icmp_signed("<", found, splat(builder, builder.trunc(rows, I32), SIDE))
        builder.store(found, builder.inttoptr(copies, _NUMBERS.as_pointer()), align=4)
        place = builder.select(exists, address, splat(builder, nothing, SIDE))
        builder.store(place, builder.inttoptr(places, _WIDE.as_pointer()), align=8)
        with builder.if_then(builder.icmp_signed("!=", sums, number(0))):
            four = load(builder, pointer(builder, sums), first, _FOUR)
            store(builder, four, pointer(builder, totals), number(0), _FOUR)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def find_means(_typing, axes, numbers, rows, totals, width, missing, means):
    """Note which cells of a tile are missing, and the mean of those that are not for each of its windows.

    All but `axes` are addresses or numbers, int64.

    Args:
        _typing: numba's own.
        axes: 2 or 3; the tile has 4 cells and 2 windows along each.
        numbers: Address of int32 (cells,), the row of each cell, more than `rows` where it is missing.
        rows: The number of rows.
        totals: Address of float32 (cells,), the sum of each cell's channels, 0 where it is missing.
        width: Channels.
        missing: Address of float32 (cells,), written: 1 where a cell is missing, else 0.
        means: Address of float32 (windows,), written; 0 where all cells are missing.

    Returns:
        What numba wants to know of it.
    """
    signature = types.void(*[types.int64] * 7)
    del axes, numbers, rows, totals, width, missing, means

    def generate(context, builder, _signature, arguments):
        axes, numbers, rows, totals, width, missing, means = arguments
        totals, missing, means = (pointer(builder, address) for address in (totals, missing, means))
        numbers = builder.inttoptr(numbers, I32.as_pointer())
        limit, ones = splat(builder, builder.trunc(rows, I32), SIDE), ir.Constant(_FOUR, [1.0] * SIDE)
        channels = splat(builder, builder.sitofp(width, F32), SIDE)

        def write(rank):
            sums, holes = [], []
            for line in range(SIDE ** (rank - 1)):
                gone = builder.icmp_signed(">", _line(builder, numbers, line, _NUMBERS), limit)
                gone = builder.select(gone, ones, ir.Constant(_FOUR, [0.0] * SIDE))
                builder.store(gone, _place(builder, missing, line, _FOUR), align=4)
                holes.append(gone)
                sums.append(_line(builder, totals, line, _FOUR))
            volume = ir.Constant(_FOUR, [float((SIDE - 1) ** rank)] * SIDE)
            for half, (total, lacking) in enumerate(
                zip(_boxes(builder, sums), _boxes(builder, holes), strict=True)
            ):
                real = builder.fsub(volume, lacking)
                real = builder.select(builder.fcmp_ordered(">", real, ones), real, ones)
                mean = builder.fdiv(total, builder.fmul(real, channels))
                builder.store(mean, _place(builder, means, half, _FOUR), align=4)

        either(builder, axes, write)
        return context.get_dummy_value()

    return signature, generate


def _boxes(builder, lines):
    """Sum boxes of three cells along each axis, by the lines of a tile; a vector a plane."""
    planes = [_pair(builder, lines[k : k + SIDE]) for k in range(0, len(lines), SIDE)]
    if len(planes) > 1:
        planes = list(zip(*(_pair(builder, beside) for beside in zip(*planes, strict=True)), strict=True))
    return [_across(builder, *pair) for pair in planes]


def _pair(builder, lines):
    """Sum the first three of four, and the last three."""
    inner = builder.fadd(lines[1], lines[2])
    return builder.fadd(lines[0], inner), builder.fadd(inner, lines[3])


def _across(builder, first, second):
    """Sum the first three numbers of each line, and the last three."""
    outer, *inner = (
        builder.shuffle_vector(first, second, ir.Constant(_NUMBERS, lanes))
        for lanes in ([0, 3, 4, 7], [1, 1, 5, 5], [2, 2, 6, 6])
    )
    return builder.fadd(outer, builder.fadd(*inner))


def _place(builder, base, line, kind):
    return builder.bitcast(builder.gep(base, [number(line * SIDE)]), kind.as_pointer())


def _line(builder, base, line, kind):
    return builder.load(_place(builder, base, line, kind), align=4)
