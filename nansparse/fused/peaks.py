"""Pooling kernels launched: the peaks of windows, and unpooled rows."""

import math

import numpy as np
import torch
from torch import Tensor

from nansparse.compiled.plans import three
from nansparse.functional.pooling import TIE_ATOL
from nansparse.fused.availability import Fused
from nansparse.policy import Policy
from nansparse.sites import Sites
from nansparse.ties import TilePeaks
from nansparse.windows import Windows

CELLS_AT_ONCE = 512
# Rows of bytes that a program goes over at a time.
ROWS_AT_ONCE = 32


def peaks_of_rows(
    fused: Fused,
    values: Tensor,
    sites: Sites,
    out: Sites,
    windows: Windows,
    policy: Policy,
    *,
    laid_out: bool,
) -> tuple[TilePeaks, bool, bool, bool]:
    """Do what `nansparse.ties` does, in one launch.

    Args:
        fused: The kernels.
        values: float32 (P, C), or (N * grid, C) if `laid_out`; NaN where a cell is.
        sites: The sites that are pooled.
        out: The windows wanted.
        windows: The geometry; the windows tile the grid and have at most eight cells.
        policy: Says when a window is unstable.
        laid_out: Whether `values` has a row for every site of the grid.

    Returns:
        The peaks; whether a window is unstable, whether one reads NaN, whether one reads infinity.
    """
    shape, device = (len(out), values.shape[1]), values.device
    best = values.new_empty(shape)
    codes, unstable, winner = (torch.empty(shape, dtype=torch.uint8, device=device) for _ in range(3))
    flags = torch.zeros(3, dtype=torch.int32, device=device)
    kernel = three(windows.kernel)
    if best.numel():
        with torch.cuda.device_of(values):
            fused.pooling.pool_cells[(-(-best.numel() // CELLS_AT_ONCE),)](
                *(values.contiguous(), flags if sites.is_complete else sites.row_of),
                *(flags if out.is_complete else out.numbers, best, codes, unstable, winner, flags),
                *(best.numel(), len(sites), float(np.float32(policy.epsilon)), float(np.float32(TIE_ATOL))),
                *(policy.max_ties, *three(windows.out_grid), *three(windows.grid)),
                **dict(zip(("kernel_d", "kernel_h", "kernel_w"), kernel, strict=True)),
                channels=shape[1],
                listed=not out.is_complete,
                complete=sites.is_complete,
                laid_out=laid_out,
                at_once=CELLS_AT_ONCE,
            )
    ties, nan, infinite = flags.tolist()
    return TilePeaks(best, codes, unstable, winner), ties > 0, nan > 0, infinite > 0


def places(fused: Fused, windows: Windows, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Say in which window each cell of the batch is, and where there.

    Args:
        fused: The kernels.
        windows: The geometry; fewer than 2^31 cells and windows.
        batch: Number of samples.
        device: Where it is needed.

    Returns:
        For every cell its window, int32, and its bit there, uint8; 0 if it is in none.
    """
    cells = batch * math.prod(windows.grid)
    window = torch.empty(cells, dtype=torch.int32, device=device)
    bit = torch.empty(cells, dtype=torch.uint8, device=device)
    if cells:
        with torch.cuda.device_of(window):
            fused.pooling.list_places[(-(-cells // CELLS_AT_ONCE),)](
                *(window, bit, cells, *three(windows.out_grid), *three(windows.grid)),
                *three(windows.kernel),
                at_once=CELLS_AT_ONCE,
            )
    return window, bit


def and_over_channels(fused: Fused, codes: Tensor) -> Tensor:
    """AND the bytes of each row.

    Args:
        fused: The kernels.
        codes: uint8 (W, C), C at least 1.

    Returns:
        uint8 (W,).
    """
    count, channels = codes.shape
    out = codes.new_empty(count)
    if count:
        with torch.cuda.device_of(codes):
            fused.pooling.and_rows[(-(-count // ROWS_AT_ONCE),)](
                *(codes.contiguous(), out, count),
                channels=channels,
                width=max(1 << (channels - 1).bit_length(), 2),
                at_once=ROWS_AT_ONCE,
            )
    return out


def put_back(
    fused: Fused,
    values: Tensor,
    place: Tensor,
    pooled: Sites,
    where: tuple[Tensor, Tensor],
    bits: list[Tensor],
) -> tuple[Tensor, bool]:
    """Read an unpooled activation at some sites.

    Args:
        fused: The kernels.
        values: (R, C), what is put back.
        place: int64 (P,), the row in `values` of each row; empty if they are the same.
        pooled: The sites of `values`.
        where: The window of each site, int32 (S,), and its bit there, uint8 (S,).
        bits: uint8 (W, C), the bits of the winners, and of the cells that are NaN if there are any.

    Returns:
        (S, C), and whether it holds NaN.
    """
    out = values.new_empty(len(where[0]), values.shape[1])
    flag = torch.zeros(1, dtype=torch.int32, device=values.device)
    if out.numel():
        with torch.cuda.device_of(values):
            fused.pooling.put_back[(-(-out.numel() // CELLS_AT_ONCE),)](
                *(values.contiguous(), place, flag if pooled.is_complete else pooled.row_of, *where),
                *(bits[0].contiguous(), bits[-1].contiguous(), out, flag, out.numel(), len(pooled)),
                channels=out.shape[1],
                placed=bool(len(place)),
                complete=pooled.is_complete,
                coded=len(bits) > 1,
                at_once=CELLS_AT_ONCE,
            )
    return out, len(bits) > 1 and bool(flag)
