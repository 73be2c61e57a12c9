"""What an engine has to do for one convolution, in amounts that the planner knows prices for."""

from typing import NamedTuple

# Width of the blocks in which CPU libraries compute channels.
CHANNEL_BLOCK = 16


class Workload(NamedTuple):
    """Amounts of work of one convolution on one engine; a call as such has a price as well.

    Attributes:
        macs: Multiply-adds, output channels rounded up as the libraries compute them.
        reads: Rows looked up in a table.
        cells: Cells copied before the multiplication.
        writes: Cells copied after it.
        sites: Sites of the input grid, for the counts that decide which windows are kept.
    """

    macs: float
    reads: float
    cells: float
    writes: float
    sites: float

    def amounts(self) -> tuple[float, ...]:
        """List the amounts, the call itself first.

        Returns:
            One number for each of `AMOUNTS`.
        """
        return (1.0, *self)


AMOUNTS = ("call", *Workload._fields)


def padded(channels: int, out_channels: int) -> int:
    """Multiply-adds of one kernel position of one window, as the libraries do them.

    Args:
        channels: Input channels.
        out_channels: Output channels.

    Returns:
        Their number.
    """
    return channels * -(-out_channels // CHANNEL_BLOCK) * CHANNEL_BLOCK
