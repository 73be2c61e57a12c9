"""Sets of sites: which places of a batch of grids carry information.

One canonical order, used everywhere: a site is numbered row-major over (sample, *spatial axes in tensor
order), and a set holds its numbers sorted. Numbers are int64, so that batch x grid may pass 2^31; the
coordinates that other libraries want, (sample, *spatial) int32, are derived. One number in place of 1 + D
columns makes look-ups and set operations several times cheaper.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from nansparse.compiled import kernels_for
from nansparse.pool import empty_rows


class Sites:
    """A sorted set of sites of a batch of equal grids.

    Attributes:
        batch: Number of samples.
        grid: Size of the grid, one integer a spatial axis.
        device: Where the numbers live.
        plans: What `nansparse.plan` worked out for this set; bounded, and gone with it.
    """

    def __init__(self, numbers: Tensor | None, batch: int, grid: Sequence[int], device: torch.device) -> None:
        """Keep the numbers.

        Args:
            numbers: int64 (P,), sorted; None for every site there is.
            batch: Number of samples.
            grid: Size of the grid.
            device: Where the numbers live.
        """
        self.batch, self.grid, self.device = batch, tuple(grid), device
        self.total = batch * math.prod(self.grid)
        self.is_complete = numbers is None or len(numbers) == self.total
        self._numbers = None if self.is_complete else numbers
        self.plans: dict[object, object] = {}

    def __len__(self) -> int:
        """Count the sites."""
        return self.total if self._numbers is None else len(self._numbers)

    @cached_property
    def numbers(self) -> Tensor:
        """Flat site numbers, int64 (P,), sorted."""
        return torch.arange(self.total, device=self.device) if self._numbers is None else self._numbers

    @cached_property
    def coords(self) -> Tensor:
        """Coordinates int32 (P, 1 + D): sample, then spatial axes in tensor order."""
        columns = torch.unravel_index(self.numbers, (self.batch, *self.grid))
        return torch.stack(columns, dim=1).to(torch.int32)

    @cached_property
    def mask(self) -> Tensor:
        """Bool (N, *grid), True at the sites of the set."""
        flat = torch.zeros(self.total, dtype=torch.bool, device=self.device)
        flat = flat.fill_(value=True) if self.is_complete else flat.index_fill_(0, self.numbers, 1)
        return flat.view(self.batch, *self.grid)

    @cached_property
    def ends(self) -> list[int]:
        """Where the rows of each sample end, 0 in front: batch + 1 numbers."""
        per_sample = self.total // max(self.batch, 1)
        starts = range(0, self.total + 1, max(per_sample, 1)) if self.total else [0] * (self.batch + 1)
        if self.is_complete:
            return list(starts)
        wanted = torch.tensor(list(starts), device=self.device)
        return torch.searchsorted(self.numbers, wanted).tolist()

    @cached_property
    def missing(self) -> Tensor:
        """Numbers of the sites that the set lacks, int64, sorted."""
        return self.mask.flatten().logical_not().nonzero().flatten()

    @cached_property
    def row_of(self) -> Tensor:
        """Row of each site, (N, *grid), int32 where it fits; `len(self) + 1` where the set lacks the site."""
        dtype = torch.int32 if self.total < torch.iinfo(torch.int32).max - 2 else torch.int64
        rows = torch.arange(len(self), dtype=dtype, device=self.device)
        if not self.is_complete:
            flat = torch.full((self.total,), len(self) + 1, dtype=dtype, device=self.device)
            rows = flat.index_copy_(0, self.numbers, rows)
        return rows.view(self.batch, *self.grid)

    @property
    def places(self) -> Tensor:
        """Where the whole grid has the row of each site, int64 (P,); empty if the set is complete."""
        return self.no_places if self.is_complete else self.numbers

    @property
    def no_places(self) -> Tensor:
        """Stands for rows that are in order, int64 (0,)."""
        return torch.empty(0, dtype=torch.int64, device=self.device)

    def where(self, keep: Tensor) -> "Sites":
        """Make the set of sites that a mask over the whole batch keeps.

        Args:
            keep: Bool (N, *grid).

        Returns:
            This set itself if the mask is its own, so that what was worked out for it is used again.
        """
        if torch.equal(keep, self.mask):
            return self
        return Sites(keep.flatten().nonzero().flatten(), self.batch, self.grid, self.device)

    def take(self, chosen: Tensor) -> "Sites":
        """Make the subset of some rows.

        Args:
            chosen: int64, sorted row numbers.

        Returns:
            The subset.
        """
        return Sites(self.numbers.index_select(0, chosen), self.batch, self.grid, self.device)

    def meet(self, other: "Sites") -> tuple["Sites", Tensor | None, Tensor | None]:
        """Intersect two sets.

        Args:
            other: A set over the same batch and grid.

        Returns:
            The common sites, and their rows in this set and in the other (None where those are all rows in
            order).
        """
        if other is self or other.is_complete:
            return self, None, None if other is self or self.is_complete else self.numbers
        if self.is_complete:
            return other, other.numbers, None
        mine = other.mask.flatten().index_select(0, self.numbers).nonzero().flatten()
        if len(mine) == len(self):
            common = other if len(other) == len(self) else self
            return common, None, None if common is other else other.rows_at(self.numbers)
        if len(mine) == len(other):
            return other, mine, None
        common = self.take(mine)
        return common, mine, other.rows_at(common.numbers)

    def join(self, other: "Sites") -> "Sites":
        """Unite two sets.

        Args:
            other: A set over the same batch and grid.

        Returns:
            The sites that either has.
        """
        if self is other or self.is_complete:
            return self
        return other if other.is_complete else self.where(self.mask | other.mask)

    def spread(
        self,
        values: Tensor,
        fill: float,
        *,
        laid_out: bool = False,
        mended: bool = False,
        out: Tensor | None = None,
    ) -> Tensor:
        """Lay rows out on the grid.

        Args:
            values: (P, C), or (N * grid, C) if `laid_out`.
            fill: What sites get that the set lacks.
            laid_out: Whether there is a row for every site, of which those that the set lacks mean nothing.
            mended: Whether NaN in a row is filled as well.
            out: (N * grid, C), written; new when None.

        Returns:
            (N * grid, C).
        """
        kernels = kernels_for(values)
        out = empty_rows(values, self.total, values.shape[1]) if out is None else out
        if kernels is not None and self.row_of.dtype == torch.int32:
            spread = kernels.cells.spread_rows
            kernels.run(spread, values, self.row_of.flatten(), len(self), laid_out, mended, fill, into=(out,))
            return out
        if laid_out:
            out.copy_(values).index_fill_(0, self.missing, fill)
        else:
            out.fill_(fill).index_copy_(0, self.numbers, values)
        return out.masked_fill_(out.isnan(), fill) if mended else out

    def rows_at(self, numbers: Tensor) -> Tensor:
        """Look up the rows of sites that this set has.

        Args:
            numbers: int64 site numbers.

        Returns:
            Their rows.
        """
        return numbers if self.is_complete else self.row_of.flatten().index_select(0, numbers)
