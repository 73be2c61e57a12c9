"""One convolution as the engines see it: weight, geometry and threshold."""

from dataclasses import dataclass

from torch import Tensor

from nansparse.windows import Windows


@dataclass(frozen=True)
class Convolution:
    """One convolution, ordinary or transposed, of any rank.

    Attributes:
        weight: (C_out, C/groups, *kernel), or (C, C_out/groups, *kernel) when transposed.
        bias: (C_out,) or None.
        windows: The geometry.
        groups: Number of groups.
        threshold: NaN share from which on a window is skipped.
    """

    weight: Tensor
    bias: Tensor | None
    windows: Windows
    groups: int
    threshold: float

    @property
    def out_channels(self) -> int:
        """Number of output channels."""
        return self.weight.shape[1] * self.groups if self.windows.transposed else self.weight.shape[0]

    @property
    def taps_last(self) -> Tensor:
        """The weight of a convolution with one group as (C_out, C, kernel volume)."""
        weight = self.weight.transpose(0, 1) if self.windows.transposed else self.weight
        return weight.flatten(2)

    def packed(self, positions: list[int]) -> Tensor:
        """Lay the weight of a convolution with one group out as a matrix.

        Args:
            positions: Kernel positions wanted, flat, row-major.

        Returns:
            (C_out, len(positions) * C), the channel running fastest.
        """
        taps = self.taps_last
        if len(positions) < taps.shape[2]:
            taps = taps[:, :, positions]
        return taps.transpose(1, 2).flatten(1)
