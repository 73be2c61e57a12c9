"""What max pooling remembers for the unpooling, and the unpooled activation, laid out only where needed.

For windows that tile the grid (stride = kernel, no padding, at most eight cells) the place of a window's
maximum and its tied cells are bits of one byte each per window and channel.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.compiled import Kernels, kernels_for
from nansparse.errors import InputError
from nansparse.fused import fused_for, fused_on
from nansparse.fused.peaks import and_over_channels, put_back
from nansparse.fused.peaks import places as fused_places
from nansparse.pool import empty_rows
from nansparse.sites import Sites
from nansparse.windows import Windows

OUTSIDE = 255


@dataclass(frozen=True)
class PoolMemory:
    """The winner and the ties of windows that tile the grid, stated where a model passes indices.

    Attributes:
        windows: The geometry.
        batch: Number of samples.
        winner: uint8 (N * windows, C), the bit of the winning cell in its window.
        codes: uint8 (N * windows, C), bit k set where cell k ties in an unstable window; None without ties.
    """

    windows: Windows
    batch: int
    winner: Tensor
    codes: Tensor | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the indices, (N, C, *pooled)."""
        return (self.batch, self.winner.shape[1], *self.windows.out_grid)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the indices."""
        return torch.int64

    @property
    def device(self) -> torch.device:
        """Where they live."""
        return self.winner.device

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """For every cell of the batch: its window and its bit there (uint8; 0 if it is in none)."""
        windows = self.windows
        total = self.batch * math.prod(windows.out_grid)
        fused = fused_on(self.device) if total < torch.iinfo(torch.int32).max else None
        if fused is not None:
            return fused_places(fused, windows, self.batch, self.device)
        dtype = torch.int32 if total < torch.iinfo(torch.int32).max else torch.int64
        window = torch.arange(self.batch, dtype=dtype, device=self.device)
        cell = torch.zeros(self.batch, dtype=torch.uint8, device=self.device)
        for size, out, kernel in zip(windows.grid, windows.out_grid, windows.kernel, strict=True):
            along = torch.arange(size, dtype=dtype, device=self.device)
            owner = torch.div(along, kernel, rounding_mode="floor")
            within = (along - owner * kernel).to(torch.uint8)
            window = window[..., None] * out + owner.clamp(max=max(out - 1, 0))
            outside = (owner >= out) | (cell[..., None] == OUTSIDE)
            cell = (cell[..., None] * kernel + within).masked_fill_(outside, OUTSIDE)
        bit = (torch.ones_like(cell) << cell.clamp(max=7)).masked_fill_(cell == OUTSIDE, 0)
        return window.flatten(), bit.flatten()

    def to_dense(self) -> Tensor:
        """Write the indices out as `torch.nn.functional.max_pool2d` gives them.

        Returns:
            int64 (N, C, *pooled), flat over the spatial axes.
        """
        table = self.windows.table(self.device)
        number_of = torch.zeros(256, dtype=torch.int64, device=self.device)
        for number in range(8):
            number_of[1 << number] = number
        rows = number_of[self.winner.long()].view(self.batch, len(table), -1)
        flat = table[None].expand(self.batch, -1, -1).gather(2, rows)
        return flat.view(self.batch, *self.windows.out_grid, -1).movedim(-1, 1)

    def ties(self) -> Tensor | None:
        """Write the remembered ties out over the grid that was pooled.

        Returns:
            Bool (N, C, *grid), or None without ties.
        """
        if self.codes is None:
            return None
        window, bit = self.places
        rows = self.codes.index_select(0, window) & bit[:, None]
        return rows.bool().view(self.batch, *self.windows.grid, -1).movedim(-1, 1)


@dataclass(frozen=True)
class Unpooled:
    """An unpooled activation that is read at the sites that the next operation needs.

    Attributes:
        values: What is put back, on the pooled grid.
        memory: Where it is put.
    """

    values: SparseActivation
    memory: PoolMemory

    def __post_init__(self) -> None:
        """Check that values and memory belong together."""
        if self.values.shape != self.memory.shape:
            raise InputError(f"values {self.values.shape} do not fit indices {self.memory.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense tensor, (N, C, *grid)."""
        return (self.memory.batch, self.values.channels, *self.memory.windows.grid)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Where they live."""
        return self.values.device

    @cached_property
    def _codes(self) -> Tensor | None:
        """Cells that become NaN: remembered ties, and the winner's place where the value is NaN."""
        values, memory = self.values, self.memory
        codes = memory.codes
        if values.sites.is_complete and not values.partial:
            return codes
        if values.partial:
            nan = torch.ones_like(memory.winner).index_fill_(0, values.sites.numbers, 0)
            rows, mask = values.holes
            nan.index_copy_(0, values.sites.numbers[rows], mask.view(torch.uint8))
        else:
            nan = values.sites.mask.logical_not().view(torch.uint8).view(-1, 1)
        place = memory.winner * nan
        return place if codes is None else place | codes

    @cached_property
    def missing(self) -> Tensor | None:
        """Bool (N * cells,), True where all channels are NaN; None if that is nowhere."""
        if self._codes is None:
            return None
        everywhere = _and_over_channels(self._codes)
        if not everywhere.numel() or not int(everywhere.max()):
            return None
        window, bit = self.memory.places
        return (everywhere.index_select(0, window) & bit).bool()

    def at(self, sites: Sites) -> SparseActivation:
        """Read the activation at some sites.

        Args:
            sites: Sites over the unpooled grid.

        Returns:
            The activation at those of them that are not missing.
        """
        if self.missing is not None:
            kept = self.missing.logical_not()
            if sites.is_complete:
                sites = sites.where(kept.view(sites.batch, *sites.grid))
            else:
                chosen = kept.index_select(0, sites.numbers)
                sites = sites if bool(chosen.all()) else sites.take(chosen.nonzero().flatten())
        window, bit = self.memory.places
        if not sites.is_complete:
            window, bit = (place.index_select(0, sites.numbers) for place in (window, bit))
        kernels, fused = kernels_for(self.values), fused_for(self.values)
        if kernels is not None and window.dtype == torch.int32:
            return self._put_back(kernels, sites, window, bit)
        if fused is not None and window.dtype == torch.int32:
            values, bits = self.values, [self.memory.winner]
            bits += [] if self._codes is None else [self._codes]
            rows, partial = put_back(fused, values.values, values.places, values.sites, (window, bit), bits)
            return SparseActivation(sites, rows, partial)
        source = self.values.rows
        row = window
        if not self.values.sites.is_complete:
            # A missing value puts NaN at its place by its code; any row will do here.
            row = self.values.sites.row_of.flatten().index_select(0, window)
            row = row.clamp_(max=max(len(source) - 1, 0))
            source = source if len(source) else source.new_zeros(1, source.shape[1])
        won = self.memory.winner.index_select(0, window) == bit[:, None]
        rows = torch.where(won, source.index_select(0, row), source.new_zeros(()))
        partial = False
        if self._codes is not None:
            nan = self._codes.index_select(0, window) & bit[:, None]
            partial = bool(nan.numel()) and int(nan.max()) > 0
            rows = rows.masked_fill_(nan.bool(), torch.nan) if partial else rows
        return SparseActivation(sites, rows, partial)

    def _put_back(self, kernels: Kernels, sites: Sites, window: Tensor, bit: Tensor) -> SparseActivation:
        """Do what `at` does, by a compiled loop."""
        values, winner = self.values, self.memory.winner
        out = empty_rows(values.values, len(sites), values.channels)
        nans = torch.empty(len(sites), dtype=torch.int32)
        row_of = nans[:0] if values.sites.is_complete else values.sites.row_of.flatten()
        codes = winner[:0] if self._codes is None else self._codes
        loop = kernels.pooling.put_back
        read = (values.values, values.places, row_of, window, bit, winner, codes)
        kernels.run(loop, *read, into=(out, nans))
        return SparseActivation(sites, out, bool(nans.any()))

    @cached_property
    def everywhere(self) -> SparseActivation:
        """The activation at all its sites."""
        return self.at(Sites(None, self.memory.batch, self.memory.windows.grid, self.device))

    def to_dense(self) -> Tensor:
        """Lay the activation out.

        Returns:
            (N, C, *grid).
        """
        return self.everywhere.to_dense()


def _and_over_channels(codes: Tensor) -> Tensor:
    """AND the bytes of each row: (W, C) to (W,)."""
    width = codes.shape[1]
    fused = fused_on(codes.device)
    if fused is not None and width:
        return and_over_channels(fused, codes)
    while width > 1:
        half = width // 2
        rest = codes[:, 2 * half :]
        codes = codes[:, :half] & codes[:, half : 2 * half]
        codes = torch.cat([codes, rest], 1) if rest.shape[1] else codes
        width = codes.shape[1]
    return codes[:, 0] if width else codes.new_zeros(len(codes))
