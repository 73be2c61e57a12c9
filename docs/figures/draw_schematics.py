"""Draw the schematics of the documentation. Every number in them is computed by `nansparse.functional`.

``python docs/figures/draw_schematics.py`` writes pooling.png and convolution.png beside this file; it needs
matplotlib (`nansparse[demo]`).
"""

# ruff: noqa: TID253  (a script: importing nansparse does not load it)

from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from nansparse.functional import nan_conv, nan_max_pool, nan_max_unpool, skipped_windows

NAN = torch.nan
# Windows of 2 x 2: stable, four ties, two ties, and stable with a NaN cell, which never ties.
POOLED = [[1.0, 5.0, 0.0, 0.0], [2.0, 3.0, 0.0, 0.0], [4.0, 4.0, NAN, 6.0], [1.0, 2.0, 3.0, 2.0]]
CONVOLVED = [
    [NAN, NAN, NAN, 1.0, 2.0],
    [NAN, NAN, 3.0, 4.0, 2.0],
    [NAN, NAN, 5.0, 4.0, 3.0],
    [NAN, 3.0, 4.0, 6.0, 2.0],
    [1.0, 2.0, 3.0, 2.0, 1.0],
]
THRESHOLD = 0.5
WHITE, TIED, GREY = "#ffffff", "#fbd38d", "#d9d9d9"
WHOLE, FILLED, LINE = "#c6dbef", "#c7e9c0", "#8c8c8c"
GREEN, RED = "#238b45", "#b30000"
DPI = 110


def grid(x: list[list[float]]) -> Tensor:
    """Make a batch of one sample and one channel.

    Args:
        x: Rows of numbers.

    Returns:
        (1, 1, H, W).
    """
    return torch.tensor(x)[None, None]


def cell(ax: Axes, row: int, column: int, text: str, *, colour: str = WHITE, hatched: bool = False) -> None:
    """Draw one cell; NaN is always hatched.

    Args:
        ax: Where.
        row: Row, from the top.
        column: Column, from the left.
        text: What is written in it.
        colour: Its background, if it is not hatched.
        hatched: Whether to hatch it.
    """
    hatched = hatched or text.startswith("NaN")
    style: dict[str, Any] = {"facecolor": GREY, "hatch": "////"} if hatched else {"facecolor": colour}
    ax.add_patch(Rectangle((column, row), 1, 1, edgecolor=LINE, lw=0.8, **style))
    box = {"facecolor": WHITE, "edgecolor": "none", "pad": 1.5} if hatched else None
    ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9, bbox=box, linespacing=1.3)


def frame(ax: Axes, title: str, size: int) -> None:
    """Set up a panel of size x size cells.

    Args:
        ax: Where.
        title: Its title.
        size: Cells along a side.
    """
    ax.set(xlim=(-0.05, size + 0.05), ylim=(size + 0.05, -0.05), aspect="equal")
    ax.set_title(title, fontsize=10)
    ax.axis("off")


def outline(ax: Axes, row: int, column: int, size: int, colour: str = "black") -> None:
    """Draw the border of a window.

    Args:
        ax: Where.
        row: Its first row.
        column: Its first column.
        size: Cells along a side.
        colour: Of the line.
    """
    ax.add_patch(Rectangle((column, row), size, size, fill=False, edgecolor=colour, lw=2))


def number(value: float) -> str:
    """Write a value.

    Args:
        value: A number or NaN.

    Returns:
        "NaN", or two decimals at most.
    """
    return "NaN" if value != value else f"{value:.2f}".rstrip("0").rstrip(".")


def draw_pooling(path: Path) -> None:
    """Draw max pooling and unpooling in both modes.

    Args:
        path: The PNG to write.
    """
    x = grid(POOLED)
    modes = ("conservative", "aggressive")
    figure = Figure(figsize=(8.2, 6.0), layout="constrained")
    rows = figure.subfigures(2, 1)
    tied = nan_max_pool(x, 2, mode="conservative").ties
    for mode, part in zip(modes, rows, strict=True):
        pooled = nan_max_pool(x, 2, mode=mode)
        unpooled = nan_max_unpool(pooled.values, pooled.indices, 2, ties=pooled.ties)
        part.suptitle(mode, fontsize=11, fontweight="bold", x=0.01, ha="left")
        panels = part.subplots(1, 3)
        frame(panels[0], "input, windows of 2 x 2", 4)
        frame(panels[1], "max pool: value, index", 2)
        frame(panels[2], "max unpool", 4)
        for r in range(4):
            for c in range(4):
                mark = tied is not None and bool(tied[0, 0, r, c])
                cell(panels[0], r, c, number(x[0, 0, r, c].item()), colour=TIED if mark else WHITE)
                cell(panels[2], r, c, number(unpooled[0, 0, r, c].item()))
        for r in range(2):
            for c in range(2):
                value, index = pooled.values[0, 0, r, c].item(), int(pooled.indices[0, 0, r, c])
                cell(panels[1], r, c, f"{number(value)}\nindex {index}")
                outline(panels[0], 2 * r, 2 * c, 2)
                outline(panels[2], 2 * r, 2 * c, 2)
    figure.legend(
        handles=[
            Patch(facecolor=TIED, edgecolor=LINE, label="ties in an unstable window"),
            Patch(facecolor=GREY, edgecolor=LINE, hatch="////", label="NaN"),
        ],
        loc="outside lower center",
        ncols=2,
        fontsize=9,
        frameon=False,
    )
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def draw_convolution(path: Path) -> None:
    """Draw which windows of a 3 x 3 convolution with padding 1 are whole, filled and skipped.

    Args:
        path: The PNG to write.
    """
    x = grid(CONVOLVED)
    size = len(CONVOLVED)
    out = nan_conv(x, torch.full((1, 1, 3, 3), 1 / 9), padding=1, threshold=THRESHOLD)
    skipped = skipped_windows(x, 3, padding=1, threshold=THRESHOLD)[0, 0]
    nan_cells = torch.nn.functional.conv2d(x.isnan().float(), torch.ones(1, 1, 3, 3), padding=1)[0, 0].long()
    figure = Figure(figsize=(10.2, 4.15), layout="constrained")
    panels = figure.subplots(1, 3)
    frame(panels[0], "input", size)
    frame(panels[1], "NaN cells of each window / 9", size)
    frame(panels[2], f"output at threshold {THRESHOLD}", size)
    for r in range(size):
        for c in range(size):
            count, gone = int(nan_cells[r, c]), bool(skipped[r, c])
            colour = FILLED if count else WHOLE
            cell(panels[0], r, c, number(x[0, 0, r, c].item()))
            cell(panels[1], r, c, f"{count}/9", colour=colour, hatched=gone)
            cell(panels[2], r, c, number(out[0, 0, r, c].item()), colour=colour)
    # One filled and one skipped window, drawn around the cells they read.
    for row, column, colour in ((2, 2, GREEN), (1, 1, RED)):
        outline(panels[0], row - 1, column - 1, 3, colour)
        outline(panels[1], row, column, 1, colour)
        outline(panels[2], row, column, 1, colour)
    most = Fraction(int(nan_cells[~skipped].max()), 9)
    figure.legend(
        handles=[
            Patch(facecolor=WHOLE, edgecolor=LINE, label="kept, no NaN"),
            Patch(facecolor=FILLED, edgecolor=LINE, label=f"kept, NaN cells take the mean (up to {most})"),
            Patch(facecolor=GREY, edgecolor=LINE, hatch="////", label="skipped: NaN"),
        ],
        loc="outside lower center",
        ncols=3,
        fontsize=9,
        frameon=False,
    )
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    # Fonts come with matplotlib, so that the files do not depend on the machine.
    mpl.rcParams.update({"font.family": "DejaVu Sans", "hatch.linewidth": 0.6, "hatch.color": LINE})
    here = Path(__file__).parent
    draw_pooling(here / "pooling.png")
    draw_convolution(here / "convolution.png")
