"""A loop over rows that does several point-wise steps at once: each row is read and written once.

The channels of a row are taken by vectors, the last one overlapping the one before, which numba does not do
by itself: few networks have as many channels as vectors are wide, or a multiple. Hence LLVM instructions.
"""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there; numba and llvmlite have
# no types.
# mypy: disable-error-code="no-untyped-def"

from itertools import product

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from nansparse.compiled.microkernel import LANES
from nansparse.pending import NOTHING, PRODUCT, SUM

# As in `nansparse.compiled.products`.
FROM_OTHERS = "82963dbaf951"
# What it can do last: ReLU, or a slope for what is not positive (PReLU; leaky ReLU; 1 for nothing at all).
SLOPE, RELU = range(2)
# Rows that a thread takes at a time.
BLOCK = 64

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


@intrinsic
def step_row(_typing, way, a, scale, shift, b, sign, slope, before, out, width):
    """Do the steps for one row; all are addresses or numbers, int64, but the sign.

    Args:
        _typing: numba's own.
        way: Twice the kind, and the bend.
        a: Address of float32 (width,), what to start from.
        scale: Address of float32 (width,).
        shift: Address of float32 (width,).
        b: Address of float32 (width,), what to combine with; anything if the kind is `NOTHING`.
        sign: float32.
        slope: Address of float32 (width,); not read for `RELU`.
        before: Address of float32 (width,), written: what is bent.
        out: Address of float32 (width,), written last.
        width: Channels, at least as many as the vectors have, or taken one by one.

    Returns:
        What numba wants to know of it.
    """
    integer = types.int64
    signature = types.void(*[integer] * 5, types.float32, *[integer] * 4)
    del way, a, scale, shift, b, sign, slope, before, out, width

    def generate(context, builder, _signature, arguments):
        way, width = arguments[0], arguments[-1]
        end = builder.append_basic_block("end")
        wide = builder.icmp_signed(">=", width, ir.Constant(_I64, LANES))
        for lanes in (LANES, 1):
            with builder.if_then(wide if lanes > 1 else builder.not_(wide)):
                done = builder.append_basic_block("done")
                choice = builder.switch(way, done)
                for kind, bend in product(range(4), range(2)):
                    block = builder.append_basic_block(f"kind{kind}bend{bend}")
                    choice.add_case(ir.Constant(_I64, 2 * kind + bend), block)
                    builder.position_at_end(block)
                    _RowLoop(builder, lanes, kind, bend).write(arguments[1:])
                    builder.branch(done)
                builder.position_at_end(done)
        builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return signature, generate


class _RowLoop:
    """The instructions for one kind and bend."""

    def __init__(self, builder, lanes, kind, bend):
        self.builder, self.lanes, self.kind, self.bend = builder, lanes, kind, bend
        self.vector = ir.VectorType(_F32, lanes)

    def write(self, arguments):
        """Write them: one pass over the channels."""
        builder = self.builder
        a, scale, shift, b, sign, slope, before, out, width = arguments
        everywhere = self.everywhere(sign)
        last = builder.sub(width, ir.Constant(_I64, self.lanes))
        step = ir.Constant(_I64, self.lanes)
        with cgutils.for_range_slice(builder, ir.Constant(_I64, 0), width, step, intp=_I64, inc=True) as (
            c,
            _,
        ):
            at = builder.select(builder.icmp_signed("<", c, last), c, last)
            value = self.scaled(self.load(a, at), self.load(scale, at), self.load(shift, at))
            if self.kind != NOTHING:
                value = self.combine(value, self.load(b, at), everywhere)
            self.store(value, before, at)
            rest = ir.Constant(self.vector, [0.0] * self.lanes)
            if self.bend == RELU:
                # As torch's: minus zero stays what it is.
                positive = builder.fcmp_unordered(">=", value, rest)
            else:
                positive = builder.fcmp_ordered(">", value, rest)
                rest = builder.fmul(value, self.load(slope, at))
            self.store(builder.select(positive, value, rest), out, at)

    def scaled(self, value, scale, shift):
        """Scale and shift a vector, rounded once where the processor can: as torch's batch norm does."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{self.lanes}f32"
        fused = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(fused, [value, scale, shift])

    def combine(self, value, other, sign):
        """Combine two vectors; NaN in either stays NaN."""
        builder = self.builder
        if self.kind == SUM:
            return builder.fadd(value, builder.fmul(sign, other))
        if self.kind == PRODUCT:
            return builder.fmul(value, other)
        mine, other = builder.fmul(sign, value), builder.fmul(sign, other)
        # "Not at most" is true for NaN in `other`, "ordered" false for NaN in `mine`.
        takes = builder.and_(
            builder.fcmp_unordered(">", other, mine), builder.fcmp_ordered("ord", mine, mine)
        )
        return builder.fmul(sign, builder.select(takes, other, mine))

    def everywhere(self, number):
        """Put a number into all lanes."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, number, ir.Constant(_I32, 0))
        lanes = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def place(self, base, channel):
        """Point to a vector."""
        start = self.builder.gep(self.builder.inttoptr(base, _F32.as_pointer()), [channel])
        return self.builder.bitcast(start, self.vector.as_pointer())

    def load(self, base, channel):
        """Load a vector, wherever it begins."""
        return self.builder.load(self.place(base, channel), align=4)

    def store(self, value, base, channel):
        """Store a vector, wherever it begins."""
        self.builder.store(value, self.place(base, channel), align=4)


@njit(
    "void("
    "float32[:, ::1], int64[::1], float32[:, ::1], float32[:, ::1], int64[::1], "
    "float32[:, ::1], int64[::1], int64, float32, int64, float32[::1], float32[:, ::1], float32[:, ::1]"
    ")",
    parallel=True,
    nogil=True,
    cache=True,
)
def run_steps(first, first_at, scale, shift, ends, second, second_at, kind, sign, bend, slope, before, out):
    """Scale and shift rows, combine them with others, and bend them; NaN stays NaN.

    Args:
        first: (R, C).
        first_at: int64 (P,), the row in `first` of each result; empty if they are in order.
        scale: (S, C), one line a part of `first`.
        shift: (S, C).
        ends: int64 (S + 1,), where the rows of each part end in `first`, 0 in front.
        second: (T, C); not read if there is nothing to combine.
        second_at: int64 (P,), as `first_at`.
        kind: `NOTHING`, `SUM`, `PRODUCT` or `EXTREME`.
        sign: 1, or -1 for a difference or a minimum.
        bend: `SLOPE` or `RELU`.
        slope: (C,).
        before: (P, C), written: what is bent; no row where nobody wants it.
        out: (P, C), written.
    """
    count, width = out.shape
    row, way = width * 4, 2 * kind + bend
    starts = first.ctypes.data, scale.ctypes.data, shift.ctypes.data, second.ctypes.data, slope.ctypes.data
    kept, to = before.ctypes.data if before.shape[0] else out.ctypes.data, out.ctypes.data
    for block in prange((count + BLOCK - 1) // BLOCK):
        part = 0
        for i in range(block * BLOCK, min(count, block * BLOCK + BLOCK)):
            at = first_at[i] if first_at.shape[0] else np.int64(i)
            other = second_at[i] if second_at.shape[0] else np.int64(i)
            while ends[part + 1] <= at:
                part += 1
            a, b = starts[0] + at * row, starts[3] + other * row
            factor, summand = starts[1] + part * row, starts[2] + part * row
            step_row(way, a, factor, summand, b, sign, starts[4], kept + i * row, to + i * row, width)  # type: ignore[call-arg]
