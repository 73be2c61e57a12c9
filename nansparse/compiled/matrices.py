"""The matrices of minimal filtering, for two results and three taps along each axis, written as instructions.

B^T, G and A^T of A. Lavin and S. Gray ("Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.1), which `along_axes` applies along each axis of a tile.
"""

# llvmlite has no types.
# mypy: disable-error-code="no-untyped-def"

from llvmlite import ir

from nansparse.compiled.microkernel import LANES
from nansparse.compiled.vectors import VECTOR, number

# Cells of a tile along an axis, its results, and cells of the kernel.
SIDE, STEP, TAPS = 4, 2, 3


def along_axes(builder, tile, rank, transform, side=SIDE):
    """Apply a matrix along each axis of a tile, the last axis first.

    Args:
        builder: What instructions are written with.
        tile: Its cells, flat, row-major.
        rank: Number of axes.
        transform: The matrix, `spread`, `shape` or `gather`.
        side: Cells along each axis.

    Returns:
        What becomes of them, flat, row-major.
    """
    sizes = [side] * rank
    for axis in reversed(range(rank)):
        behind = 1
        for size in sizes[axis + 1 :]:
            behind *= size
        lines: dict[tuple[int, int], list[ir.Value]] = {}
        for k, value in enumerate(tile):
            lines.setdefault((k // (behind * side), k % behind), []).append(value)
        done = {place: transform(builder, line) for place, line in lines.items()}
        sizes[axis] = len(next(iter(done.values())))
        blocks = len(tile) // (behind * side)
        tile = [done[i, j][k] for i in range(blocks) for k in range(sizes[axis]) for j in range(behind)]
    return tile


def shape(b, g):
    """Write G g.

    Args:
        b: What instructions are written with.
        g: Three vectors.

    Returns:
        Four vectors.
    """
    half = ir.Constant(VECTOR, [0.5] * LANES)
    outer, inner = b.fmul(b.fadd(g[0], g[2]), half), b.fmul(g[1], half)
    return g[0], b.fadd(outer, inner), b.fsub(outer, inner), g[2]


def spread(b, d):
    """Write B^T d.

    Args:
        b: What instructions are written with.
        d: Four vectors.

    Returns:
        Four vectors.
    """
    return b.fsub(d[0], d[2]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[1], d[3])


def gather(b, m):
    """Write A^T m.

    Args:
        b: What instructions are written with.
        m: Four vectors.

    Returns:
        Two vectors.
    """
    return b.fadd(b.fadd(m[0], m[1]), m[2]), b.fsub(b.fsub(m[1], m[2]), m[3])


def either(builder, axes, write):
    """Write the instructions for a plane and for a volume, and choose between them.

    Args:
        builder: What instructions are written with.
        axes: int64.
        write: Writes them, given the number of axes.
    """
    with builder.if_else(builder.icmp_signed("==", axes, number(2))) as (plane, volume):
        with plane:
            write(2)
        with volume:
            write(3)
