"""The kept windows of a convolution and the rows they read, worked out by compiled loops."""

import math

import numpy as np
import torch
from torch import Tensor

from nansparse.compiled.availability import Kernels
from nansparse.sites import Sites
from nansparse.windows import Windows

# The line of a geometry that says so.
PADDING = 2


def kept_windows(kernels: Kernels, nan: Tensor, windows: Windows, limit: int) -> tuple[Sites, Tensor]:
    """Find the windows with few NaN cells.

    Args:
        kernels: The loops.
        nan: int32 (N, *grid), NaN cells at each site.
        windows: The geometry; not transposed.
        limit: A window is kept if it has fewer.

    Returns:
        The kept windows and their NaN cells, int32 (M,).
    """
    batch, out = nan.shape[0], three(windows.out_grid)
    counts = torch.empty(batch, *out, dtype=torch.int32)
    kept = torch.empty(batch * out[0] * out[1], dtype=torch.int64)
    image = nan.view(batch, *three(windows.grid))
    kernels.run(kernels.windows.count_windows, image, geometry_of(windows), limit, into=(counts, kept))
    ends = kept.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    numbers, nan_cells = torch.empty(total, dtype=torch.int64), torch.empty(total, dtype=torch.int32)
    lines = counts.view(len(kept), out[2])
    row_of = torch.empty_like(lines)
    listed = (numbers, nan_cells, row_of)
    kernels.run(kernels.windows.list_windows, lines, limit, ends.sub_(kept), into=listed)
    found = Sites(numbers, batch, windows.out_grid, nan.device)
    found.row_of = row_of.view(batch, *windows.out_grid)
    return found, nan_cells


def rows_read(kernels: Kernels, sites: Sites, out: Sites, windows: Windows) -> Tensor:
    """Look up the rows that kept windows read.

    Args:
        kernels: The loops.
        sites: The input's sites.
        out: The kept windows.
        windows: The geometry; not transposed.

    Returns:
        int32 (M, kernel positions); P stands for padding and P + 1 for a missing site.
    """
    table = torch.empty(len(out), math.prod(windows.kernel), dtype=torch.int32)
    rows = sites.row_of.view(sites.batch, *three(sites.grid))
    shape = np.array(three(windows.out_grid), dtype=np.int64)
    kernels.run(
        kernels.windows.read_table, rows, out.numbers, shape, geometry_of(windows), len(sites), into=(table,)
    )
    return table


def geometry_of(windows: Windows) -> np.ndarray:
    """Lay a geometry out as the loops want it.

    Args:
        windows: The geometry.

    Returns:
        int64 (4, 3): kernel, stride, padding and dilation.
    """
    lead = 3 - len(windows.kernel)
    ones, none = (1,) * lead, (0,) * lead
    lines = [ones + windows.kernel, ones + windows.stride, none + windows.padding, ones + windows.dilation]
    return np.array(lines, dtype=np.int64)


def three(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Make a plane's sizes those of a volume of depth 1.

    Args:
        sizes: Two or three.

    Returns:
        Three.
    """
    return (1,) * (3 - len(sizes)) + tuple(sizes)
