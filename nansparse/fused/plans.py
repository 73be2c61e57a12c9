"""The kept windows of a convolution, counted by a Triton kernel."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from nansparse.compiled.plans import geometry_of, three
from nansparse.fused.availability import Fused
from nansparse.sites import Sites
from nansparse.windows import Windows

WINDOWS_AT_ONCE = 256
_AXES = ("d", "h", "w")


def kept_windows(
    fused: Fused, sites: Sites, nan: Tensor | None, windows: Windows, limit: int
) -> tuple[Tensor, Tensor]:
    """Find the windows with few NaN cells.

    Args:
        fused: The kernels.
        sites: The input's sites.
        nan: int32 (N, *grid), NaN cells at each site; None where no row holds NaN and a missing site counts
            1.
        windows: The geometry; not transposed.
        limit: A window is kept if it has fewer.

    Returns:
        Numbers of the kept windows, int64 (M,), and their NaN cells, int32 (M,).
    """
    total = sites.batch * math.prod(windows.out_grid)
    counts = torch.empty(total, dtype=torch.int32, device=sites.device)
    keep = torch.empty(total, dtype=torch.bool, device=sites.device)
    if total:
        fused.windows.count_windows[(-(-total // WINDOWS_AT_ONCE),)](
            sites.row_of if nan is None else nan,
            *(counts, keep.view(torch.int8), total, len(sites), limit),
            *(*three(windows.out_grid), *three(windows.grid)),
            counted=nan is not None,
            at_once=WINDOWS_AT_ONCE,
            **geometry(windows),
        )
    numbers = keep.nonzero().flatten()
    return numbers, counts.index_select(0, numbers)


@lru_cache(maxsize=256)
def geometry(windows: Windows) -> dict[str, int]:
    """Name a geometry as the kernels do.

    Args:
        windows: The geometry.

    Returns:
        "kernel_d" and so on to a size; the first axis of a plane has one position.
    """
    names = ("kernel", "stride", "padding", "dilation")
    return {
        f"{name}_{axis}": int(size)
        for name, line in zip(names, geometry_of(windows), strict=True)
        for axis, size in zip(_AXES, line, strict=True)
    }
