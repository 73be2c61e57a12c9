"""The definitions, one loop a word: samples, groups or channels, windows, cells. Nothing is clever here.

Arrays are numpy, (N, C, *spatial); every option is one integer a spatial axis. Ties are judged in the dtype
that comes in (they depend on the last bit), convolutions are computed in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

Cell = tuple[int, ...]


class Pooled(NamedTuple):
    values: np.ndarray
    indices: np.ndarray
    ties: np.ndarray


class Convolved(NamedTuple):
    values: np.ndarray
    skipped: np.ndarray


def is_inside(cell: Cell, grid: Sequence[int]) -> bool:
    return all(0 <= place < size for place, size in zip(cell, grid, strict=True))


def flat_number(cell: Cell, grid: Sequence[int]) -> int:
    number = 0
    for place, size in zip(cell, grid, strict=True):
        number = number * size + place
    return number


def window_cells(site: Cell, kernel: Cell, stride: Cell, low: Cell, dilation: Cell) -> Iterator[Cell]:
    """Every cell that the output at `site` reads, in the kernel's order, inside the grid or not."""
    for offset in itertools.product(*(range(size) for size in kernel)):
        yield tuple(
            o * s - p + k * d for o, s, p, k, d in zip(site, stride, low, offset, dilation, strict=True)
        )


def pooled_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    places = Fraction(size + 2 * padding - dilation * (kernel - 1) - 1, stride)
    count = (math.ceil(places) if ceil_mode else math.floor(places)) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1  # the last window must start inside the image or its low padding
    return count


def is_tie(value: np.floating, top: np.floating, epsilon: float) -> bool:
    """|w - m| <= 1e-8 + epsilon |m| in the values' own arithmetic; infinities tie with their like."""
    if value == top:
        return True
    kind = type(top)
    error = abs(value - top)
    return bool(np.isfinite(error) and error <= kind(1e-8) + abs(kind(epsilon) * top))


@np.errstate(all="ignore")
def max_pool(
    x: np.ndarray,
    kernel: Cell,
    stride: Cell,
    padding: Cell,
    dilation: Cell,
    ceil_mode: bool = False,
    *,
    mode: str,
    max_ties: int = 1,
    epsilon: float = 1e-7,
) -> Pooled:
    grid = x.shape[2:]
    options = zip(grid, kernel, stride, padding, dilation, strict=True)
    out_grid = tuple(pooled_size(*option, ceil_mode) for option in options)
    values = np.zeros(x.shape[:2] + out_grid, x.dtype)
    indices = np.zeros(values.shape, np.int64)
    ties = np.zeros(x.shape, bool)
    for n, c in np.ndindex(x.shape[:2]):
        for site in np.ndindex(out_grid):
            at = (n, c, *site)
            image = x[n, c]
            cells = [
                cell
                for cell in window_cells(site, kernel, stride, padding, dilation)
                if is_inside(cell, grid)
            ]
            real = [cell for cell in cells if not np.isnan(image[cell])]
            if not real:
                values[at] = np.nan
                indices[at] = flat_number(cells[0], grid)
                continue
            top = max(image[cell] for cell in real)
            first = next(cell for cell in real if image[cell] == top)
            tied = [cell for cell in real if is_tie(image[cell], top, epsilon)]
            unstable = len(tied) > max_ties
            if unstable and mode == "aggressive":
                values[at] = np.nan
                indices[at] = flat_number(cells[0], grid)
                continue
            values[at] = top
            indices[at] = flat_number(first, grid)
            if unstable:
                for cell in tied:
                    ties[(n, c, *cell)] = True
    return Pooled(values, indices, ties)


def max_unpool(
    values: np.ndarray, indices: np.ndarray, out_grid: Cell, ties: np.ndarray | None = None
) -> np.ndarray:
    out = np.zeros(values.shape[:2] + (math.prod(out_grid),), values.dtype)
    for n, c, *site in np.ndindex(values.shape):
        value, index = values[(n, c, *site)], indices[(n, c, *site)]
        if not np.isnan(out[n, c, index]):  # where windows overlap, NaN wins
            out[n, c, index] = value
    if ties is not None:
        grid = ties.shape[2:]
        for n, c, *cell in np.ndindex(ties.shape):
            if ties[(n, c, *cell)]:
                out[n, c, flat_number(tuple(cell), grid)] = np.nan
    return out.reshape(values.shape[:2] + tuple(out_grid))


def fill(window: list[float], threshold: float) -> list[float] | None:
    """The window with its NaN cells filled, or None if skipped; the threshold is the decimal as written."""
    real = [value for value in window if not math.isnan(value)]
    holes = len(window) - len(real)
    if holes and (not real or Fraction(holes, len(window)) >= Fraction(repr(threshold))):
        return None
    mean = sum(real) / len(real) if real else 0.0
    return [mean if math.isnan(value) else value for value in window]


def weigh(window: list[float], weights: list[float], bias: float) -> float:
    return sum(w * v for w, v in zip(weights, window, strict=True)) + bias


def same_padding(kernel: Cell, dilation: Cell) -> tuple[Cell, Cell]:
    """As padding='same' pads at stride 1: the odd cell goes to the high side."""
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


@np.errstate(all="ignore")
def conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Cell,
    low: Cell,
    high: Cell,
    dilation: Cell,
    groups: int,
    threshold: float,
) -> Convolved:
    grid, kernel = x.shape[2:], weight.shape[2:]
    options = zip(grid, kernel, stride, low, high, dilation, strict=True)
    out_grid = tuple((size + p + q - d * (k - 1) - 1) // s + 1 for size, k, s, p, q, d in options)
    inputs, outputs = x.shape[1] // groups, weight.shape[0] // groups
    out = np.zeros((x.shape[0], weight.shape[0], *out_grid))
    skipped = np.zeros((x.shape[0], groups, *out_grid), bool)
    for n, g in np.ndindex(skipped.shape[:2]):
        for site in np.ndindex(out_grid):
            window = [
                float(x[(n, c, *cell)]) if is_inside(cell, grid) else 0.0
                for c in range(g * inputs, (g + 1) * inputs)
                for cell in window_cells(site, kernel, stride, low, dilation)
            ]
            filled = fill(window, threshold)
            skipped[(n, g, *site)] = filled is None
            for o in range(g * outputs, (g + 1) * outputs):
                start = 0.0 if bias is None else float(bias[o])
                weights = [float(w) for w in weight[o].ravel()]
                out[(n, o, *site)] = math.nan if filled is None else weigh(filled, weights, start)
    return Convolved(out, skipped)


@np.errstate(all="ignore")
def conv_transpose(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    stride: Cell,
    padding: Cell,
    output_padding: Cell,
    groups: int,
    dilation: Cell,
    threshold: float,
) -> Convolved:
    grid, kernel = x.shape[2:], weight.shape[2:]
    options = zip(grid, kernel, stride, padding, output_padding, dilation, strict=True)
    out_grid = tuple((size - 1) * s - 2 * p + d * (k - 1) + q + 1 for size, k, s, p, q, d in options)
    inputs, outputs = x.shape[1] // groups, weight.shape[1]
    out = np.zeros((x.shape[0], groups * outputs, *out_grid))
    skipped = np.zeros((x.shape[0], groups, *out_grid), bool)
    for n, g in np.ndindex(skipped.shape[:2]):
        for site in np.ndindex(out_grid):
            met = []  # pairs of kernel position and input cell; stride gaps are no cells
            for offset in itertools.product(*(range(size) for size in kernel)):
                place = [o + p - k * d for o, p, k, d in zip(site, padding, offset, dilation, strict=True)]
                if all(a % s == 0 for a, s in zip(place, stride, strict=True)):
                    met.append((offset, tuple(a // s for a, s in zip(place, stride, strict=True))))
            channels = range(g * inputs, (g + 1) * inputs)
            window = [
                float(x[(n, c, *cell)]) if is_inside(cell, grid) else 0.0 for c in channels for _, cell in met
            ]
            filled = fill(window, threshold)
            skipped[(n, g, *site)] = filled is None
            for o in range(outputs):
                start = 0.0 if bias is None else float(bias[g * outputs + o])
                weights = [float(weight[(c, o, *offset)]) for c in channels for offset, _ in met]
                value = math.nan if filled is None else weigh(filled, weights, start)
                out[(n, g * outputs + o, *site)] = value
    return Convolved(out, skipped)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, threshold: float) -> np.ndarray:
    out = np.zeros((*x.shape[:-1], weight.shape[0]))
    for at in np.ndindex(x.shape[:-1]):
        filled = fill([float(value) for value in x[at]], threshold)
        for o in range(weight.shape[0]):
            start = 0.0 if bias is None else float(bias[o])
            weights = [float(w) for w in weight[o]]
            out[(*at, o)] = math.nan if filled is None else weigh(filled, weights, start)
    return out
