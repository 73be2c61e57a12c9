"""How much memory a process has taken: what decides how many workers a machine can feed."""

from __future__ import annotations

import sys

_KIB_A_MIB, _BYTES_A_MIB = 1 << 10, 1 << 20


def peak_mib() -> float | None:
    """Look up the most memory that this process has held since it started, networks and libraries included.

    Returns:
        Resident MiB; None where the system does not tell (Windows).
    """
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    return most / (_BYTES_A_MIB if sys.platform == "darwin" else _KIB_A_MIB)
