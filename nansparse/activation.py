"""The sparse form of an activation, and the way to and from dense tensors.

`SparseActivation(sites, rows, partial)`: row p of `rows` (P, C) belongs to site p of `sites` (sorted, see
`nansparse.sites`). A site is missing when all its channels are NaN. A row may hold NaN in some channels
(right after pooling it does); `partial` says whether one may, so that nothing else needs to look.

Where most sites are there, moving rows together and apart again costs more than it saves: an activation may
then hold its rows laid out on the grid, with anything at the missing sites. `rows` is the same either way;
who can work on either form asks for `values`. Point-wise steps may be put off until then
(`nansparse.pending`).
"""

from functools import cached_property

import torch
from torch import Tensor

from nansparse.compiled import kernels_for
from nansparse.nan_rows import rows_with_nan, rows_with_numbers
from nansparse.pending import Pending
from nansparse.sites import Sites
from nansparse.strides import as_image, as_rows

# Share of the sites from which on rows are left on the grid: below it the passes over rows that carry
# nothing outweigh the copies.
LEFT_ON_GRID = 0.5


class SparseActivation:
    """The sites of an activation that carry information.

    Attributes:
        sites: Which sites those are; P of them.
        partial: Whether a row may hold NaN.
        laid_out: Whether `values` has a row for every site of the grid.
        sure: Whether somebody looked and saw no NaN where `partial` allows none.
    """

    def __init__(
        self,
        sites: Sites,
        values: Tensor | Pending,
        partial: bool,
        *,
        laid_out: bool = False,
        sure: bool = False,
    ) -> None:
        """Keep the values.

        Args:
            sites: The sites that carry information.
            values: (P, C) rows of the sites, or (N * grid, C) rows of the whole grid. In the second form the
                rows of missing sites mean nothing and may be overwritten. Either may be pending.
            partial: Whether a row of a site may hold NaN.
            laid_out: Which form it is; implied where no site is missing.
            sure: Whether somebody looked for NaN.
        """
        self.sites, self.partial, self.sure = sites, partial, sure
        self.laid_out = laid_out or sites.is_complete
        self._values = values

    @property
    def values(self) -> Tensor:
        """What is held: rows of the sites, or of the whole grid if `laid_out`."""
        if isinstance(self._values, Pending):
            self._values = self._values.run()
        return self._values

    @property
    def pending(self) -> Pending | None:
        """The steps that lead to `values`, if those were not computed yet."""
        return self._values if isinstance(self._values, Pending) else None

    def settle(self, values: Tensor) -> None:
        """Take pending values from who had to compute them anyway.

        Args:
            values: What the pending steps give.
        """
        self._values = values

    @cached_property
    def rows(self) -> Tensor:
        """(P, C), channels at each site."""
        if self.laid_out and not self.sites.is_complete:
            return self.values.index_select(0, self.sites.numbers)
        return self.values

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self._values.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the values."""
        return self._values.dtype

    @property
    def device(self) -> torch.device:
        """Where the values live."""
        return self._values.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense tensor, (N, C, *spatial)."""
        return (self.sites.batch, self.channels, *self.sites.grid)

    @property
    def plans(self) -> dict[object, object]:
        """Where `nansparse.plan` keeps what it worked out: with the sites, unless rows are partly NaN."""
        return self._own_plans if self.partial else self.sites.plans

    @cached_property
    def _own_plans(self) -> dict[object, object]:
        return {}

    @property
    def places(self) -> Tensor:
        """Where `values` has the row of each site, int64 (P,); empty if the rows are in order."""
        return self.sites.places if self.laid_out else self.sites.no_places

    @property
    def nans(self) -> Tensor:
        """How many cells of each row are NaN, int32 (P,)."""
        if kernels_for(self) is not None:
            return self.sums[1]
        if self.device.type != "cpu":  # fewer launches, and nothing waits for the device
            return self.rows.isnan().sum(1, dtype=torch.int32)
        rows, mask = self.holes
        return torch.zeros(len(self.sites), dtype=torch.int32).index_copy_(0, rows, mask.sum(1).int())

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor]:
        """The sum of each row's real cells, (P,), and how many of its cells are NaN, int32 (P,)."""
        kernels = kernels_for(self)
        if kernels is None:
            return self.rows.nansum(1), self.nans
        sums = self.values.new_empty(len(self.sites))
        nans = torch.empty(len(self.sites), dtype=torch.int32)
        kernels.run(kernels.cells.sum_rows, self.values, self.places, into=(sums, nans))
        return sums, nans

    @cached_property
    def holes(self) -> tuple[Tensor, Tensor]:
        """The rows that hold NaN, int64 (H,), and where they do, bool (H, C)."""
        if not self.partial:
            none = torch.zeros(0, dtype=torch.int64, device=self.device)
            return none, torch.zeros(0, self.channels, dtype=torch.bool, device=self.device)
        suspects = rows_with_nan(self.values)
        if self.laid_out and not self.sites.is_complete:
            suspects = suspects[self.sites.mask.flatten().index_select(0, suspects)]
            return self.sites.rows_at(suspects).long(), self.values.index_select(0, suspects).isnan()
        return suspects, self.values.index_select(0, suspects).isnan()

    @classmethod
    def from_dense(cls, x: Tensor) -> "SparseActivation":
        """Drop the sites of a dense tensor that are wholly NaN.

        Args:
            x: (N, C, *spatial). A channels_last tensor without wholly-NaN sites is not copied.

        Returns:
            Its sparse form.
        """
        batch, grid = x.shape[0], x.shape[2:]
        rows = as_rows(x)
        keep, partial = rows_with_numbers(rows)
        if keep is None:
            return cls(Sites(None, batch, grid, x.device), rows, partial=False)
        sites = Sites(keep.nonzero().flatten(), batch, grid, x.device)
        if sites.is_complete:
            return cls(sites, rows, partial)
        if len(sites) < LEFT_ON_GRID * sites.total:
            return cls(sites, rows.index_select(0, sites.numbers), partial)
        return cls(sites, rows.clone() if rows.data_ptr() == x.data_ptr() else rows, partial, laid_out=True)

    def to_dense(self, fill: float = torch.nan) -> Tensor:
        """Lay the rows out on the grid.

        Args:
            fill: Value at the missing sites.

        Returns:
            (N, C, *spatial), channels last in memory; a view of the rows where no site is missing.
        """
        rows = self.values
        if not self.sites.is_complete:
            if self.laid_out:
                rows = rows.index_fill(0, self.sites.missing, fill)
            else:
                rows = self.sites.spread(rows, fill)
        return as_image(rows, self.sites.batch, self.sites.grid)

    def with_values(self, values: Tensor | Pending) -> "SparseActivation":
        """Give the same sites other values, in the form that is held, NaN where they were NaN.

        Args:
            values: (P, C'), or (N * grid, C') if `laid_out`.

        Returns:
            The activation.
        """
        return SparseActivation(self.sites, values, self.partial, laid_out=self.laid_out)

    def with_rows(self, rows: Tensor | Pending) -> "SparseActivation":
        """Give the same sites other rows, NaN where they were NaN.

        Args:
            rows: (P, C').

        Returns:
            The activation.
        """
        return SparseActivation(self.sites, rows, self.partial)

    def narrowed(self, rows: Tensor) -> "SparseActivation":
        """Give the same sites other rows, which may be NaN in more places; sites left wholly NaN go.

        Args:
            rows: (P, C'); holds NaN only if these rows do.

        Returns:
            The activation.
        """
        if not self.partial:
            return SparseActivation(self.sites, rows, partial=False)
        nan = rows.isnan()
        kept = ~nan.all(1)
        partial = bool((nan.any(1) & kept).any())
        if bool(kept.all()):
            return SparseActivation(self.sites, rows, partial)
        chosen = kept.nonzero().flatten()
        return SparseActivation(self.sites.take(chosen), rows.index_select(0, chosen), partial)

    def restricted(self, sites: Sites, chosen: Tensor | None) -> "SparseActivation":
        """Keep some of the sites.

        Args:
            sites: The sites kept.
            chosen: Their rows; None for all.

        Returns:
            The activation.
        """
        if chosen is None:
            return SparseActivation(sites, self.rows, self.partial)
        if self.laid_out and not self.sites.is_complete:
            return SparseActivation(sites, self.values.index_select(0, sites.numbers), self.partial)
        return SparseActivation(sites, self.values.index_select(0, chosen), self.partial)
