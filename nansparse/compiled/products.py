"""Products of windows with a weight, straight from the rows they read, means in place of NaN.

Nothing is gathered: for each cell of a window the loop notes where its channels lie, be it a row of the
activation, zeros (padding), or the window's mean (a missing site), and the innermost code multiplies from
there. That code is a microkernel in the sense of BLIS (Van Zee and van de Geijn, "BLIS: A Framework for
Rapidly Instantiating BLAS Functionality", section 3): a small matrix of sums stays in registers while
channels pass by. numba's own loops cannot be told to keep it there, so it is written as LLVM instructions.
It stands in this file because numba's cache looks at no other.
"""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from llvmlite import binding, ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from nansparse.compiled.cells import ANY_ORDER
from nansparse.compiled.windows import reach_of, read_windows

# Windows that share the pointers and sums of a chunk: their sums and the weights below fit a core's nearest
# cache together.
BLOCK = 96
# Cells of the weight that are used for all of a block before the next ones are.
WEIGHT_CELLS = 6144
# Channels multiplied between two looks at the end of the loop.
UNROLLED = 4
_WIDE = binding.get_host_cpu_features().get("avx512f", False)
# float32 numbers of a vector.
LANES = 16 if _WIDE else 8
# Microkernels, (windows, vectors of output channels) each, the most welcome first: as many sums as leave
# registers for a window's cell and the weights, of 32 with AVX-512 and 16 without.
SHAPES = ((6, 4), (5, 5), (8, 3), (12, 2), (24, 1)) if _WIDE else ((6, 2), (4, 3), (12, 1))

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)


@intrinsic
def accumulate(_typing, shape, sums, reads, pitch, weight, count, channels):
    """Add the product of some windows with some kernel positions to their sums.

    All but `shape` are addresses or numbers, int64.

    Args:
        _typing: numba's own.
        shape: Which of `SHAPES`, (w windows, v vectors).
        sums: Address of float32 (w, v * LANES).
        reads: Address of int64 (count, pitch), addresses of the cells that each of the w windows reads.
        pitch: See `reads`.
        weight: Address of float32 (count, channels, v * LANES).
        count: Kernel positions.
        channels: float32 numbers behind each address in `reads`.

    Returns:
        What numba wants to know of it.
    """
    signature = types.void(*[types.int64] * 7)
    del shape, sums, reads, pitch, weight, count, channels

    def generate(context, builder, _signature, arguments):
        end = builder.append_basic_block("end")
        choice = builder.switch(arguments[0], end)
        for number, (windows, vectors) in enumerate(SHAPES):
            block = builder.append_basic_block(f"windows{windows}")
            choice.add_case(ir.Constant(_I64, number), block)
            builder.position_at_end(block)
            _Microkernel(builder, windows, vectors).write(*arguments[1:])
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


class _Microkernel:
    """The instructions for one shape."""

    def __init__(self, builder, windows, vectors):
        self.builder, self.windows, self.vectors = builder, windows, vectors
        # LLVM turns variables whose address is never taken into registers.
        self.sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(windows * vectors)]
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        self.multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")

    def write(self, sums, reads, pitch, weight, count, channels):
        """Write them: load the sums, pass over positions and channels, store the sums."""
        b = self.builder
        held = b.inttoptr(sums, _F32.as_pointer())
        addresses, weights = b.inttoptr(reads, _I64.as_pointer()), b.inttoptr(weight, _F32.as_pointer())
        for i, variable in enumerate(self.sums):
            b.store(self.vector(held, _number(i * LANES)), variable)
        whole = b.and_(channels, _number(-UNROLLED))
        with cgutils.for_range(b, count) as position:
            first = b.mul(position.index, pitch)
            cells = [
                b.inttoptr(b.load(b.gep(addresses, [b.add(first, _number(w))])), _F32.as_pointer())
                for w in range(self.windows)
            ]
            before = b.mul(position.index, channels)
            for start, stop, step in ((_number(0), whole, UNROLLED), (whole, channels, 1)):
                with cgutils.for_range_slice(b, start, stop, _number(step), intp=_I64, inc=True) as (c, _):
                    for ahead in range(step):
                        self.multiply(cells, weights, before, b.add(c, _number(ahead)))
        for i, variable in enumerate(self.sums):
            b.store(b.load(variable), self.place(held, _number(i * LANES)), align=4)

    def multiply(self, cells, weights, before, channel):
        """Multiply one channel of all windows with its weights."""
        b = self.builder
        row = b.mul(b.add(before, channel), _number(self.vectors * LANES))
        factors = [self.vector(weights, b.add(row, _number(v * LANES))) for v in range(self.vectors)]
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
        for w, cell in enumerate(cells):
            value = b.insert_element(undefined, b.load(b.gep(cell, [channel])), ir.Constant(_I32, 0))
            everywhere = b.shuffle_vector(value, undefined, lanes)
            for v, factor in enumerate(factors):
                variable = self.sums[w * self.vectors + v]
                b.store(b.call(self.multiply_add, [everywhere, factor, b.load(variable)]), variable)

    def place(self, base, offset):
        """Point to a vector."""
        return self.builder.bitcast(self.builder.gep(base, [offset]), _VECTOR.as_pointer())

    def vector(self, base, offset):
        """Load a vector, wherever it begins."""
        return self.builder.load(self.place(base, offset), align=4)


def _number(value):
    return ir.Constant(_I64, value)


@njit(
    "void(float32[:, :, :], int64[::1], float32[:, :, :, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def pack_weight(taps, positions, packed):
    """Lay a weight out in panels of output channels.

    Args:
        taps: (O, C, kernel volume), anyhow in memory.
        positions: int64 (K,), kernel positions wanted.
        packed: (panels, K, C, panel), written; zeros where there are no more channels.
    """
    panels, reads, channels, panel = packed.shape
    for part in prange(panels * channels):
        p, c = part // channels, part % channels
        last = min(panel, taps.shape[0] - p * panel)
        for k in range(reads):
            at = positions[k]
            for q in range(last):
                packed[p, k, c, q] = taps[p * panel + q, c, at]
            for q in range(last, panel):
                packed[p, k, c, q] = 0


@njit
def find_means(values, place, reads, start, live, nan_cells, cells, sums, partial, means):
    """Write the mean of the real cells of windows that hold NaN, as often as there are channels.

    Args:
        values: See `multiply_windows`.
        place: See there.
        reads: int32 (K, live or more), rows that the windows read.
        start: The first window.
        live: How many there are.
        nan_cells: See there.
        cells: See there.
        sums: See there.
        partial: See there.
        means: (live or more, C), written.
    """
    # Unsigned numbers spare the loops a check for negative indices.
    rows = np.uint64(place.shape[0] if place.shape[0] else values.shape[0])
    width = values.shape[1]
    for i in range(live):
        w = start + i
        if not nan_cells[w]:
            continue
        total = np.float32(0)
        for k in range(reads.shape[0]):
            r = np.uint64(reads[k, i])
            if r < rows and sums.shape[0]:
                total += sums[r]
            elif r < rows:
                s = np.uint64(place[r]) if place.shape[0] else r
                for q in range(width):
                    total += values[s, q]
        real = cells[w if cells.shape[0] > 1 else 0] - nan_cells[w]
        total /= np.float32(real if partial else real * width)
        for q in range(width):
            means[i, q] = total


@njit
def find_cells(base, place, reads, live, rows, row, means, zeros, addresses):
    """Note where each cell of some windows lies.

    Args:
        base: Address of the values.
        place: See `multiply_windows`.
        reads: int32 (K, live or more), rows that the windows read.
        live: How many windows there are.
        rows: Number of sites.
        row: Bytes of a row.
        means: Address of a row for each window, which stands for its missing sites.
        zeros: Address of a row of zeros, which stands for padding.
        addresses: int64 (K, live or more), written; zeros behind the last window.
    """
    for k in range(reads.shape[0]):
        for i in range(live):
            r = reads[k, i]
            absent = zeros if r == rows else means + i * row
            s = place[np.uint64(min(np.int64(r), rows - 1))] if place.shape[0] else np.int64(r)
            addresses[k, i] = base + s * row if r < rows else absent
        for i in range(live, addresses.shape[1]):
            addresses[k, i] = zeros


@njit
def mend_rows(values, place, reads, live, nans, means, mended, addresses):
    """Copy the rows that are partly NaN, the window's mean in place of that, and note where the copies lie.

    Args:
        values: See `multiply_windows`.
        place: See there.
        reads: int32 (K, live or more), rows that the windows read.
        live: How many windows there are.
        nans: See there.
        means: (live or more, C).
        mended: (live or more, K, C), written.
        addresses: int64 (K, live or more), written where a row is copied.
    """
    rows = np.uint64(nans.shape[0])
    width = values.shape[1]
    base = mended.ctypes.data
    for i in range(live):
        for k in range(reads.shape[0]):
            r = np.uint64(reads[k, i])
            if r >= rows or not nans[r]:
                continue
            s = np.uint64(place[r]) if place.shape[0] else r
            for q in range(width):
                v = values[s, q]
                mended[i, k, q] = v if v == v else means[i, q]
            addresses[k, i] = base + (i * reads.shape[0] + k) * width * 4


@njit(
    "void("
    "float32[:, ::1], int64[::1], int32[:, ::1], int32[:, :, :, ::1], int64[::1], int64[::1], "
    "int64[:, ::1], int64, int32[::1], int64[::1], float32[::1], int32[::1], boolean, "
    "float32[:, :, :, ::1], float32[::1], int64, int64, int64, int64[::1], float32[:, ::1]"
    ")",
    parallel=True,
    nogil=True,
    cache=True,
    fastmath=ANY_ORDER,
)
def multiply_windows(
    values,
    place,
    table,
    row_of,
    numbers,
    out_grid,
    geometry,
    count,
    nan_cells,
    cells,
    sums,
    nans,
    partial,
    weight,
    bias,
    shape,
    at_once,
    chunks,
    goal,
    out,
):
    """Multiply windows with a weight, the mean of a window's real cells in place of its NaN cells.

    Args:
        values: (R, C).
        place: int64 (P,), the row in `values` of each row; empty if they are the same.
        table: int32 (M, K), rows that the windows read; P stands for padding and P + 1 for a missing site.
            Empty to look them up in `row_of`.
        row_of: int32 (N, D, H, W), the row of each site.
        numbers: int64 (M,), numbers of the windows in the grid of outputs; empty if they are 0, 1, ...
        out_grid: int64 (3,), windows along each axis.
        geometry: See `nansparse.compiled.windows`.
        count: M, the number of windows.
        nan_cells: int32 (M,), NaN cells of each window.
        cells: int64 (M,), or (1,) for all alike: real and NaN cells of a window, in the unit of `nan_cells`.
        sums: (P,) of `sum_rows`; empty to sum again where it is needed.
        nans: int32 (P,) of `sum_rows`; read if `partial`.
        partial: Whether rows may hold NaN; the unit is then a cell, else a site.
        weight: (panels, K, C, panel), output channels in panels as wide as the vectors of the shape.
        bias: (panels * panel,).
        shape: Which of `SHAPES`.
        at_once: Its windows.
        chunks: Parts in which threads take the windows.
        goal: int64 (M,), the row of `out` of each window; empty if they are in order.
        out: (M or more, O), written.
    """
    rows = place.shape[0] if place.shape[0] else values.shape[0]
    panels, reads, width, panel = weight.shape
    together = max(1, WEIGHT_CELLS // (width * panel))
    base, packed, row, pitch = values.ctypes.data, weight.ctypes.data, width * 4, BLOCK + at_once
    reach = reach_of(geometry, row_of.shape[2], row_of.shape[3])
    for chunk in prange(chunks):
        totals, constants = np.empty((pitch, panel), np.float32), np.zeros((BLOCK + 1, width), np.float32)
        read, addresses = np.empty((reads, BLOCK), np.int32), np.empty((reads, pitch), np.int64)
        firsts = np.empty(BLOCK, np.int64)
        mended = np.empty((BLOCK, reads if partial else 0, width), np.float32)
        held, means, lying = totals.ctypes.data, constants.ctypes.data, addresses.ctypes.data
        zeros = means + BLOCK * row
        # Whole microkernels, no whole blocks, so that the work is even.
        begin = (count * chunk // chunks + at_once - 1) // at_once * at_once
        end = min(count, (count * (chunk + 1) // chunks + at_once - 1) // at_once * at_once)
        for start in range(begin, end, BLOCK):
            live = min(BLOCK, end - start)
            if table.shape[0]:
                for i in range(live):
                    for k in range(reads):
                        read[k, i] = table[start + i, k]
            else:
                read_windows(row_of, numbers, start, live, out_grid, geometry, reach, rows, firsts, read)
            find_means(values, place, read, start, live, nan_cells, cells, sums, partial, constants)
            find_cells(base, place, read, live, rows, row, means, zeros, addresses)
            if partial:
                mend_rows(values, place, read, live, nans, constants, mended, addresses)
            for p in range(panels):
                for i in range(live + at_once):
                    for q in range(panel):
                        totals[i, q] = bias[p * panel + q]
                for k in range(0, reads, together):
                    part = packed + (p * reads + k) * panel * row
                    positions = min(together, reads - k)
                    for i in range(0, live, at_once):
                        first = lying + (k * pitch + i) * 8
                        accumulate(shape, held + i * panel * 4, first, pitch, part, positions, width)
                last = min(panel, out.shape[1] - p * panel)
                for i in range(live):
                    to = goal[start + i] if goal.shape[0] else start + i
                    for q in range(last):
                        out[to, p * panel + q] = totals[i, q]
