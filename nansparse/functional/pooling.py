"""NaN-aware max pooling and unpooling (arXiv 2601.17180, sections on NaN pooling and unpooling), literally.

In a pooling window with maximum m over its real cells, a cell w ties when

    (3)  |w - m| <= 1e-8 + epsilon * |m|      (`torch.isclose`; NaN cells and padding never tie).

A window is unstable when more than `max_ties` cells tie. A stable window gives m and its first index. An
unstable one gives, in conservative mode, m and its first index, and all tied cells are remembered for the
unpooling; in aggressive mode NaN, with the window's first in-bounds cell as index. A window without a real
cell gives NaN.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nansparse.errors import InputError
from nansparse.functional.checks import check_activation
from nansparse.policy import check_generator, check_tie_rule
from nansparse.windows import Windows, as_ints

TIE_ATOL = 1e-8
Size = int | Sequence[int]


class MaxPoolResult(NamedTuple):
    """What NaN-aware max pooling gives.

    Attributes:
        values: (N, C, *out), NaN where a window is NaN.
        indices: int64 (N, C, *out), flat over the input's spatial axes, as `F.max_pool2d` gives them.
        ties: Bool, shape of the input, True at every remembered tied cell; None in aggressive mode.
    """

    values: Tensor
    indices: Tensor
    ties: Tensor | None


def pooling_windows(
    grid: Sequence[int],
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    *,
    ceil_mode: bool,
) -> Windows:
    """Lay out the windows of a max pooling.

    Args:
        grid: Size of the input grid.
        kernel_size: Window size.
        stride: Stride; the window size when None or empty.
        padding: Cells on either side that never win; at most half the window.
        dilation: Dilation.
        ceil_mode: Whether a last, partly covered window counts; if it starts in the input or its low padding.

    Returns:
        The windows.

    Raises:
        InputError: If an option is wrong.
    """
    rank = len(grid)
    kernel = as_ints(kernel_size, rank, "kernel_size", 1)
    steps = kernel if stride is None or stride == () or stride == [] else stride
    pads = as_ints(padding, rank, "padding", 0)
    if any(2 * p > k for p, k in zip(pads, kernel, strict=True)):
        raise InputError(f"padding must be at most half the kernel size {kernel}, got {padding!r}")
    steps, dilations = as_ints(steps, rank, "stride", 1), as_ints(dilation, rank, "dilation", 1)
    out = []
    for size, k, s, p, d in zip(grid, kernel, steps, pads, dilations, strict=True):
        room = size + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        out.append(count - 1 if ceil_mode and (count - 1) * s >= size + p else count)
    if min(out) < 1:
        raise InputError(f"no output: kernel {kernel} does not fit the padded input grid {tuple(grid)}")
    return Windows(tuple(grid), tuple(out), kernel, steps, pads, dilations)


def nan_max_pool(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    mode: str,
    max_ties: int = 1,
    epsilon: float = 1e-7,
    nan_probability: float = 1.0,
    generator: torch.Generator | None = None,
) -> MaxPoolResult:
    """Pool an activation and mark what is numerically unstable (equation 3).

    Args:
        x: (N, C, *spatial), NaN where unstable.
        kernel_size: As in `torch.nn.functional.max_pool2d`.
        stride: As there.
        padding: As there.
        dilation: As there.
        ceil_mode: As there.
        mode: "conservative" or "aggressive".
        max_ties: A window is unstable when more cells than this tie.
        epsilon: Relative tolerance of a tie.
        nan_probability: Aggressive mode: probability with which an unstable window becomes NaN.
        generator: Source of random numbers for that, on the CPU; needed when the probability is below 1.

    Returns:
        Values, indices and remembered ties.

    Raises:
        InputError: If shapes, dtypes or options do not fit.
    """
    check_activation(x)
    check_tie_rule(mode, max_ties, epsilon, nan_probability)
    check_generator(nan_probability, generator)
    windows = pooling_windows(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
    table = windows.table(x.device)
    inside = table >= 0
    cells = x.flatten(2)[:, :, table.clamp(min=0)]
    real = inside & ~cells.isnan()
    best = cells.masked_fill(~real, -torch.inf).amax(-1)
    empty = ~real.any(-1)

    first_inside = _first(inside)[None, None].expand(best.shape)
    winner = torch.where(empty, first_inside, _first(real & (cells == best[..., None])))
    tied = real & torch.isclose(cells, best[..., None].expand_as(cells), rtol=epsilon, atol=TIE_ATOL)
    unstable = tied.sum(-1) > max_ties
    nan = empty
    ties = None
    if mode == "conservative":
        ties = _mark(tied & unstable[..., None], table, x)
    else:
        if nan_probability < 1.0:
            unstable &= draw(tuple(unstable.shape), nan_probability, generator).to(x.device)
        nan = empty | unstable
        winner = torch.where(nan, first_inside, winner)
    indices = table.expand(*best.shape, -1).gather(-1, winner[..., None]).squeeze(-1)
    shape = (*x.shape[:2], *windows.out_grid)
    return MaxPoolResult(best.masked_fill(nan, torch.nan).reshape(shape), indices.reshape(shape), ties)


def nan_max_unpool(
    values: Tensor,
    indices: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    output_size: Sequence[int] | None = None,
    *,
    ties: Tensor | None = None,
) -> Tensor:
    """Put pooled values back at their indices, zeros elsewhere, and NaN at every remembered tied cell.

    Where windows overlap, NaN wins. Ties are placed as indices are: by flat number over the spatial axes.

    Args:
        values: (N, C, *pooled), NaN where unstable.
        indices: int64, shape of `values`, from `nan_max_pool`.
        kernel_size: As in `torch.nn.functional.max_unpool2d`.
        stride: As there.
        padding: As there.
        output_size: As there: the spatial size (leading axes are ignored).
        ties: Bool (N, C, *unpooled), from `nan_max_pool` in conservative mode; None in aggressive mode.

    Returns:
        (N, C, *unpooled).

    Raises:
        InputError: If shapes or options do not fit, or an index lies outside the output.
    """
    rank = check_activation(values, "values")
    if indices.shape != values.shape or indices.dtype != torch.int64:
        raise InputError(
            f"indices must be int64 {tuple(values.shape)}, got {indices.dtype} {tuple(indices.shape)}"
        )
    kernel = as_ints(kernel_size, rank, "kernel_size", 1)
    steps = kernel if stride is None or stride == () or stride == [] else as_ints(stride, rank, "stride", 1)
    pads = as_ints(padding, rank, "padding", 0)
    grid = values.shape[2:]
    default = tuple((g - 1) * s - 2 * p + k for g, s, p, k in zip(grid, steps, pads, kernel, strict=True))
    out_grid = default if output_size is None else tuple(int(v) for v in output_size[-rank:])
    if len(out_grid) != rank or any(
        abs(o - d) >= s for o, d, s in zip(out_grid, default, steps, strict=True)
    ):
        raise InputError(f"output_size must be within one stride {steps} of {default}, got {output_size!r}")
    out = values.new_zeros(*values.shape[:2], torch.Size(out_grid).numel())
    flat, where = values.flatten(2), indices.flatten(2)
    if where.numel() and (int(where.min()) < 0 or int(where.max()) >= out.shape[-1]):
        raise InputError(f"an index lies outside the unpooled grid {out_grid}")
    out.scatter_(2, where, flat)
    nan = torch.zeros_like(out, dtype=torch.int8).scatter_reduce_(
        2, where, flat.isnan().to(torch.int8), "amax"
    )
    if ties is not None:
        nan |= _fit_ties(ties, out)
    return out.masked_fill_(nan.bool(), torch.nan).reshape(*values.shape[:2], *out_grid)


def draw(shape: Sequence[int], probability: float, generator: torch.Generator | None) -> Tensor:
    """Draw which unstable windows become NaN, one number a window whether it is unstable or not.

    Args:
        shape: (N, C, *out).
        probability: Share to draw.
        generator: Source of random numbers, on the CPU.

    Returns:
        Bool tensor on the CPU, flattened to (N, C, outputs).
    """
    return torch.rand(tuple(shape), generator=generator).flatten(2) < probability


def _first(mask: Tensor) -> Tensor:
    # argmax of equal values is the first one.
    return mask.to(torch.uint8).argmax(-1)


def _mark(tied: Tensor, table: Tensor, x: Tensor) -> Tensor:
    # Lays per-window ties (N, C, outputs, kernel) out over the input's cells.
    spots = table.clamp(min=0).expand_as(tied).flatten(2)
    marks = torch.zeros(x.flatten(2).shape, dtype=torch.int8, device=x.device)
    return marks.scatter_reduce_(2, spots, tied.flatten(2).to(torch.int8), "amax").bool().reshape(x.shape)


def _fit_ties(ties: Tensor, out: Tensor) -> Tensor:
    if ties.dtype != torch.bool or ties.shape[:2] != out.shape[:2]:
        raise InputError(
            f"ties must be bool (N, C, ...) = {tuple(out.shape[:2])}, got {ties.dtype} {tuple(ties.shape)}"
        )
    flat = ties.flatten(2)
    cells = out.shape[-1]
    if flat.shape[-1] > cells and bool(flat[..., cells:].any()):
        raise InputError("a remembered tie lies outside the unpooled grid: give output_size")
    fitted = torch.zeros_like(out, dtype=torch.int8)
    common = min(cells, flat.shape[-1])
    fitted[..., :common] = flat[..., :common].to(torch.int8)
    return fitted
