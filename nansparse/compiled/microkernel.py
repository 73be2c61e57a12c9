"""The innermost loop of a product: a small matrix of sums stays in registers while channels pass by.

This is a microkernel in the sense of BLIS (Van Zee and van de Geijn, "BLIS: A Framework for Rapidly
Instantiating BLAS Functionality", section 3). numba's own loops cannot be told to keep the sums in registers,
so it is written as LLVM instructions, which run on any processor.
"""

# numba and llvmlite have no types.
# mypy: disable-error-code="no-untyped-def"

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Channels multiplied between two looks at the end of the loop.
UNROLLED = 4
_WIDE = binding.get_host_cpu_features().get("avx512f", False)
# float32 numbers of a vector.
LANES = 16 if _WIDE else 8
# Microkernels, (windows, vectors of output channels) each, the most welcome first: as many sums as leave
# registers for a window's cell and the weights, of 32 with AVX-512 and 16 without.
SHAPES = ((6, 4), (5, 5), (8, 3), (12, 2), (12, 1)) if _WIDE else ((6, 2), (4, 3), (12, 1))

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)


@intrinsic
def accumulate(_typing, shape, sums, reads, pitch, weight, count, channels, fresh):
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
        fresh: 1 to begin with zeros whatever stands in `sums`, 0 to add to that.

    Returns:
        What numba wants to know of it.
    """
    signature = types.void(*[types.int64] * 8)
    del shape, sums, reads, pitch, weight, count, channels, fresh

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

    def write(self, sums, reads, pitch, weight, count, channels, fresh):
        """Write them: load the sums, pass over positions and channels, store the sums."""
        b = self.builder
        held = b.inttoptr(sums, _F32.as_pointer())
        addresses, weights = b.inttoptr(reads, _I64.as_pointer()), b.inttoptr(weight, _F32.as_pointer())
        with b.if_else(b.icmp_signed("!=", fresh, _number(0))) as (new, old):
            with new:
                for variable in self.sums:
                    b.store(ir.Constant(_VECTOR, [0.0] * LANES), variable)
            with old:
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
