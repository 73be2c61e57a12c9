"""Whether rows that should repeat each other do."""

# One signature, compiled on import: with several, processes that compile them at the same time can overwrite
# each other's entries in the cache of numba. What they take is said there.
# mypy: disable-error-code="no-untyped-def"

from numba import njit, prange

# Sites that are looked at together.
BLOCK = 1024


@njit(
    "void(float32[:, ::1], int64[::1], float32, float32, boolean[::1])",
    parallel=True,
    nogil=True,
    cache=True,
)
def compare_rows(values, original, share, least, differ):
    """Compare each row with the one that it should repeat.

    Args:
        values: (P, C).
        original: int64 (P,), which row each row repeats; itself where it repeats none.
        share: Difference that is allowed, as a share of the original.
        least: Difference that is allowed in any case.
        differ: bool (blocks of `BLOCK` rows), written: whether one of the block is another; NaN is.
    """
    width = values.shape[1]
    for block in prange(differ.shape[0]):
        other = False
        for i in range(block * BLOCK, min(values.shape[0], block * BLOCK + BLOCK)):
            at = original[i]
            if at == i:
                continue
            wrong = 0
            for q in range(width):
                expected = values[at, q]
                # Written so that NaN, and no difference of infinities, is another value.
                near = abs(values[i, q] - expected) <= share * abs(expected) + least
                wrong += 0 if near else 1
            if wrong:
                other = True
                break
        differ[block] = other
