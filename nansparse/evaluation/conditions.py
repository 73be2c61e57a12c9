"""The conditions under which anything is timed: threads fixed, denormals flushed, no gradients.

Denormal numbers slow some processors down a hundredfold, and no deployment keeps them. The processor's flag
belongs to a thread, and the workers of torch's pool take it over from the thread that starts them: so the
conditions are set before the first parallel operation, and `denormals_flushed` looks whether every worker
has them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from nansparse.errors import InputError

# Large enough that torch splits the work over all threads (its grain is 32,768 cells).
_CELLS_PER_THREAD = 1 << 17


@contextlib.contextmanager
def fixed_conditions(threads: int) -> Iterator[None]:
    """Fix the number of threads and flush denormals, as any deployment would; both are put back.

    Args:
        threads: CPU threads.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def denormals_flushed() -> bool:
    """Look whether every worker of torch's thread pool flushes denormals.

    Returns:
        True if none of them keeps one.
    """
    denormal = torch.ones(_CELLS_PER_THREAD * torch.get_num_threads(), dtype=torch.int32).view(torch.float32)
    # Compared as bits: a processor that reads denormals as zero would call both equal.
    return not bool((denormal * 1.0).view(torch.int32).any())


def find_device(name: str) -> torch.device:
    """Find a device that is there.

    Args:
        name: As torch calls it: "cpu", "cuda", "cuda:1".

    Returns:
        The device.

    Raises:
        InputError: If there is no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {name!r}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise InputError(f"device {name!r} is not here: torch sees {count} CUDA device(s)")
    elif device.type != "cpu":
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    return device
