"""Short names for LLVM instructions on vectors of float32, for the loops that are written in them."""

# llvmlite has no types.
# mypy: disable-error-code="no-untyped-def"

from llvmlite import ir
from numba.core import cgutils

from nansparse.compiled.microkernel import LANES

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(F32, LANES)
ZEROS = ir.Constant(VECTOR, [0.0] * LANES)


def number(value):
    """Write an int64.

    Args:
        value: The number.

    Returns:
        The constant.
    """
    return ir.Constant(I64, value)


def load(builder, base, offset, kind):
    """Load a number or a vector, wherever it begins.

    Args:
        builder: What instructions are written with.
        base: Pointer to numbers.
        offset: How many of them lie before it, int64.
        kind: What to load.

    Returns:
        The value.
    """
    return builder.load(builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()), align=4)


def store(builder, value, base, offset, kind):
    """Store a number or a vector, wherever it begins.

    Args:
        builder: What instructions are written with.
        value: What to store.
        base: Pointer to numbers.
        offset: How many of them lie before it, int64.
        kind: Its kind.
    """
    builder.store(value, builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()), align=4)


def splat(builder, value, lanes):
    """Put one value into all lanes of a vector.

    Args:
        builder: What instructions are written with.
        value: The value.
        lanes: How many.

    Returns:
        The vector.
    """
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    vector = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def everywhere(builder, base, place):
    """Load one number into all lanes of a vector.

    Args:
        builder: What instructions are written with.
        base: Pointer to float32.
        place: Which of them.

    Returns:
        The vector.
    """
    return splat(builder, builder.load(builder.gep(base, [number(place)])), LANES)


def multiply_add(builder, a, b, c):
    """Write a * b + c, rounded once where the processor can.

    Args:
        builder: What instructions are written with.
        a: A vector.
        b: A vector.
        c: A vector.

    Returns:
        The vector.
    """
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32"), [a, b, c]
    )


def pointer(builder, address):
    """Make an address of float32 a pointer.

    Args:
        builder: What instructions are written with.
        address: int64.

    Returns:
        The pointer.
    """
    return builder.inttoptr(address, F32.as_pointer())
