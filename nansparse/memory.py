"""Keeping freed memory in the process, so that each layer's output need not be asked of the system anew.

The C library of most Linux systems (glibc) gives large blocks back to the system as soon as a tensor dies.
The next tensor then starts on pages that the system has to map and clear, page by page: on a CPU that takes
up to a third of the time of a network with full-size activations, dense or sparse.
"""

import ctypes
import platform

# Numbers of mallopt's parameters, and what turns each of them off (malloc.h; mallopt(3)).
_TRIM_THRESHOLD, _NEVER_TRIM = -1, 2**31 - 1
_MMAP_THRESHOLD, _LARGEST = -3, 2**30


class _Allocator:
    """The C library's allocator, which belongs to the whole process."""

    def __init__(self) -> None:
        self.keeps = False

    def keep(self) -> bool:
        if not self.keeps and platform.libc_ver()[0] == "glibc":
            library = ctypes.CDLL(None)
            options = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _NEVER_TRIM))
            answers = [library.mallopt(option, value) for option, value in options]
            self.keeps = answers == [1, 1]
        return self.keeps


_allocator = _Allocator()


def keep_memory() -> bool:
    """Let the process keep memory that was freed, for the tensors to come (glibc's mallopt).

    It holds for the whole process, for everything in it, and until its end; the process then stays as large
    as it ever was. `nansparse predict` does it. See docs/memory.md.

    Returns:
        Whether memory is kept now; False where the C library is another one, whose allocator is left alone.
    """
    return _allocator.keep()


def memory_is_kept() -> bool:
    """Say whether `keep_memory` took effect in this process.

    Returns:
        True if it did.
    """
    return _allocator.keeps
