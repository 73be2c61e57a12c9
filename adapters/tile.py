"""Tiles: an ordinary convolution over the blocks of the grid that hold a kept window.

Each active block is copied once, with the cells around it, instead of once a kernel position as in `gather`.
That pays where kept windows lie together and channels are few.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.fill import add_fill_terms, write_zeroed_rows
from nansparse.plan import plan_windows
from nansparse.product import cells_per_chunk
from nansparse.scratch import Scratch
from nansparse.tiles import Tiles, find_tiles, tile_reach
from nansparse.workload import Workload, padded

# Outputs along an axis, by the number of axes.
SIZES = {2: (8, 16, 32), 3: (4, 8, 16)}
# A cell copied costs about as much as this many multiply-adds; the choice of a size is not sensitive to it.
COPIED_CELL = 20


class TileEngine(Engine):
    """Convolve active blocks with plain torch, on any device."""

    name = "tile"

    def __init__(self) -> None:
        """Start without scratch memory."""
        self._scratch = Scratch()

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Reasons; empty if it can.
        """
        reasons = []
        if convolution.groups > 1:
            reasons.append(f"groups={convolution.groups}: tile runs groups=1")
        if convolution.windows.transposed:
            reasons.append("tile runs no transposed convolution")
        return reasons

    def least_workload(self, kept: int, activation: SparseActivation, convolution: Convolution) -> Workload:
        """Say what there is to do at least: a tile copies its cells, and its windows are copied out of it.

        Args:
            kept: Windows that are not skipped.
            activation: The input.
            convolution: What to compute.

        Returns:
            The amounts, as if tiles held kept windows only and reached no further than these.
        """
        products = super().least_workload(kept, activation, convolution)
        cells, writes = kept * activation.channels, 2 * kept * convolution.out_channels
        return products._replace(cells=cells, writes=writes)

    def workload(self, activation: SparseActivation, convolution: Convolution) -> Workload:
        """Say what there is to do.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The amounts, for the tile size that would be used.
        """
        tiles = _best_tiles(activation, convolution)
        cells = len(tiles) * math.prod(tiles.reach)
        outputs = len(tiles) * tiles.volume
        window = convolution.windows.volume * padded(activation.channels, convolution.out_channels)
        return Workload(
            macs=outputs * window,
            reads=cells,
            cells=cells * activation.channels,
            writes=(outputs + len(tiles.plan.out)) * convolution.out_channels,
            sites=activation.sites.total,
        )

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute the active tiles and keep the windows below the threshold.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The output.
        """
        tiles = _best_tiles(activation, convolution)
        plan, channels = tiles.plan, activation.channels
        rows = self._scratch.take("rows", (len(activation.sites) + 2, channels), activation.values)
        write_zeroed_rows(activation, rows)
        blocks = self._scratch.take(
            "blocks", (len(tiles) * tiles.volume, convolution.out_channels), activation.values
        )
        if len(tiles):
            self._convolve(blocks, rows, tiles, convolution)
        out = blocks.index_select(0, tiles.places)
        add_fill_terms(out, rows, activation, convolution, plan)
        return SparseActivation(plan.out, out, partial=False)

    def _convolve(self, blocks: Tensor, rows: Tensor, tiles: Tiles, convolution: Convolution) -> None:
        """Write the outputs of all tiles, some tiles at a time."""
        windows, channels = convolution.windows, rows.shape[1]
        cells = math.prod(tiles.reach)
        step = _rounded(min(len(tiles), max(cells_per_chunk(rows.device) // max(cells * channels, 1), 1)))
        gathered = self._scratch.take("cells", (step * cells, channels), rows)
        convolve = F.conv2d if len(windows.grid) == 2 else F.conv3d
        for start in range(0, len(tiles), step):
            chosen = tiles.table[start : start + step]
            # Few batch sizes occur: oneDNN generates code for each one that it meets.
            size = _rounded(len(chosen))
            torch.index_select(rows, 0, chosen.flatten(), out=gathered[: chosen.numel()])
            gathered[chosen.numel() : size * cells] = 0
            images = gathered[: size * cells].view(size, *tiles.reach, channels).movedim(-1, 1)
            values = convolve(
                images, convolution.weight, convolution.bias, windows.stride, 0, windows.dilation
            )
            flat = values.movedim(1, -1).reshape(size * tiles.volume, convolution.out_channels)
            first = start * tiles.volume
            count = len(chosen) * tiles.volume
            blocks[first : first + count] = flat[:count]


def _rounded(tiles: int) -> int:
    grain = 8 if tiles > 8 else 2
    return max(-(-tiles // grain), 1) * grain


def _best_tiles(activation: SparseActivation, convolution: Convolution) -> Tiles:
    """Find the tiles of the size that costs least, or find them again with the plan."""
    plan = plan_windows(activation, convolution.windows, convolution.threshold)
    key = ("tiles", convolution.windows, convolution.threshold, convolution.out_channels)
    known = activation.plans.get(key)
    if isinstance(known, Tiles) and known.plan is plan:
        return known
    grid = plan.out.grid
    sizes = {tuple(min(t, max(out, 1)) for out in grid) for t in SIZES[len(grid)]}
    best = min(
        (find_tiles(plan, size) for size in sorted(sizes)), key=lambda t: _cost(t, activation, convolution)
    )
    activation.plans[key] = best
    return best


def _cost(tiles: Tiles, activation: SparseActivation, convolution: Convolution) -> float:
    window = convolution.windows.volume * convolution.out_channels
    cells = math.prod(tile_reach(convolution.windows, tiles.size))
    return len(tiles) * activation.channels * (tiles.volume * window + COPIED_CELL * cells)
