"""A loop over the sites that two activations share: each is read where it lies, the result written once."""

# One signature each, compiled on import: with several, processes that compile them at the same time can
# overwrite each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit, prange

# What `combine_rows` can do with two cells, by name of the torch function.
OPERATIONS = ("maximum", "add", "sub", "mul", "minimum")


@njit(
    "void(float32[:, ::1], int64[::1], float32[:, ::1], int64[::1], int64, float32[:, ::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def combine_rows(first, first_at, second, second_at, operation, out):
    """Combine rows of two activations; NaN in either gives NaN.

    Args:
        first: (R, C).
        first_at: int64 (P,), the row in `first` of each result; empty if they are in order.
        second: (S, C).
        second_at: int64 (P,), as `first_at`.
        operation: Which of `OPERATIONS`.
        out: (P, C), written.
    """
    width = out.shape[1]
    for i in prange(out.shape[0]):
        a = first[np.uint64(first_at[i]) if first_at.shape[0] else np.uint64(i)]
        b = second[np.uint64(second_at[i]) if second_at.shape[0] else np.uint64(i)]
        if operation == 0:
            for q in range(width):
                # A comparison with NaN is false: a NaN in `a` stays, one in `b` is taken.
                out[i, q] = b[q] if not b[q] <= a[q] and a[q] == a[q] else a[q]
        elif operation == 1:
            for q in range(width):
                out[i, q] = a[q] + b[q]
        elif operation == 2:
            for q in range(width):
                out[i, q] = a[q] - b[q]
        elif operation == 3:
            for q in range(width):
                out[i, q] = a[q] * b[q]
        else:
            for q in range(width):
                out[i, q] = b[q] if not b[q] >= a[q] and a[q] == a[q] else a[q]
