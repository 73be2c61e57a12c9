"""NaN-aware convolution (arXiv 2601.17180, section on NaN convolution), literally and window by window.

With r the share of NaN cells in a window (C_in/groups channels x kernel positions, padding being zeros):

    (1)  r >= threshold            ->  the output is NaN, the window is skipped;
    (2)  otherwise                 ->  every NaN cell takes the mean of the window's real cells (padding zeros
                                       included), then the ordinary convolution and bias follow.

Sums run in float32 for half-precision tensors and in the tensor's own dtype otherwise.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nansparse.errors import InputError
from nansparse.functional.checks import FLOAT_DTYPES, check_activation, check_weight
from nansparse.policy import check_threshold
from nansparse.threshold import is_skipped
from nansparse.windows import GAP, Windows, convolution_windows, transposed_windows

Size = int | Sequence[int]


def nan_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    threshold: float = 0.5,
) -> Tensor:
    """Convolve an activation that holds NaN (equations 1 and 2).

    Args:
        x: (N, C, *spatial), NaN where unstable.
        weight: (C_out, C/groups, *kernel), same dtype as `x`.
        bias: (C_out,) or None.
        stride: As in `torch.nn.functional.conv2d`.
        padding: As there; "same" and "valid" too.
        dilation: As there.
        groups: As there; windows are judged per group.
        threshold: NaN share in (0, 1] from which on a window is skipped.

    Returns:
        (N, C_out, *out), NaN where the window was skipped. Without NaN in `x` it is torch's own, bit for bit.

    Raises:
        InputError: If shapes, dtypes or options do not fit.
    """
    rank = check_activation(x)
    check_weight(x, weight, bias, groups)
    check_threshold(threshold)
    windows = convolution_windows(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    if not x.isnan().any():
        ordinary = F.conv2d if rank == 2 else F.conv3d
        steps, dilations = list(windows.stride), list(windows.dilation)
        pads = padding if isinstance(padding, str) else list(windows.padding)
        return ordinary(x, weight, bias, steps, pads, dilations, groups)
    grouped = weight.unflatten(0, (groups, -1)).flatten(3)
    return _convolve(x, grouped, bias, windows, threshold)


def nan_conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    threshold: float = 0.5,
) -> Tensor:
    """Apply a transposed convolution to an activation that holds NaN (equations 1 and 2).

    An output's window is the kernel positions that meet the input grid: stride gaps are no cells, positions
    outside the input count as zeros.

    Args:
        x: (N, C, *spatial), NaN where unstable.
        weight: (C, C_out/groups, *kernel), same dtype as `x`.
        bias: (C_out,) or None.
        stride: As in `torch.nn.functional.conv_transpose2d`.
        padding: As there.
        output_padding: As there.
        groups: As there; windows are judged per group.
        dilation: As there.
        threshold: NaN share in (0, 1] from which on a window is skipped.

    Returns:
        (N, C_out, *out), NaN where the window was skipped.

    Raises:
        InputError: If shapes, dtypes or options do not fit.
    """
    rank = check_activation(x)
    check_weight(x, weight, bias, groups, transposed=True)
    check_threshold(threshold)
    windows = transposed_windows(x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)
    if not x.isnan().any():
        ordinary = F.conv_transpose2d if rank == 2 else F.conv_transpose3d
        steps, pads, dilations = list(windows.stride), list(windows.padding), list(windows.dilation)
        extra = [output_padding] * rank if isinstance(output_padding, int) else list(output_padding)
        return ordinary(x, weight, bias, steps, pads, extra, groups, dilations)
    grouped = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(3)
    return _convolve(x, grouped, bias, windows, threshold)


def nan_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, threshold: float = 0.5) -> Tensor:
    """Apply a linear layer whose window is the feature vector (equations 1 and 2).

    Args:
        x: (..., features), NaN where unstable.
        weight: (out_features, features), same dtype as `x`.
        bias: (out_features,) or None.
        threshold: NaN share in (0, 1] from which on a vector is skipped.

    Returns:
        (..., out_features), all NaN where the vector was skipped.

    Raises:
        InputError: If shapes, dtypes or options do not fit.
    """
    check_threshold(threshold)
    dtypes = [t.dtype for t in (x, weight, bias) if t is not None]
    if x.dtype not in FLOAT_DTYPES or len(set(dtypes)) > 1:
        found = ", ".join(map(str, dtypes))
        raise InputError(f"x, weight and bias must share one float dtype, got {found}")
    if x.dim() < 1 or weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        raise InputError(f"weight must be (out, {x.shape[-1:]}), got {tuple(weight.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise InputError(f"bias must be {tuple(weight.shape[:1])}, got {tuple(bias.shape)}")
    nan = x.isnan()
    size = torch.tensor(x.shape[-1], device=x.device)
    skipped = is_skipped(nan.sum(-1), size, threshold)
    real = x.masked_fill(nan, 0.0).to(_accumulator(x.dtype))
    mean = real.sum(-1, keepdim=True) / (~nan).sum(-1, keepdim=True)
    filled = torch.where(nan, mean, real).to(x.dtype)
    return F.linear(filled, weight, bias).masked_fill(skipped[..., None], torch.nan)


def skipped_windows(
    x: Tensor,
    kernel_size: Size,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    threshold: float = 0.5,
) -> Tensor:
    """Say which windows of a convolution are skipped (equation 1).

    Args:
        x: (N, C, *spatial), NaN where unstable.
        kernel_size: As in `torch.nn.functional.conv2d`.
        stride: As there.
        padding: As there.
        dilation: As there.
        groups: Number of groups C is divided into.
        threshold: NaN share in (0, 1] from which on a window is skipped.

    Returns:
        Bool (N, groups, *out).

    Raises:
        InputError: If shapes, dtypes or options do not fit.
    """
    check_activation(x)
    check_threshold(threshold)
    if groups < 1 or x.shape[1] % groups:
        raise InputError(f"groups must divide the {x.shape[1]} channels, got {groups!r}")
    windows = convolution_windows(x.shape[2:], kernel_size, stride, padding, dilation)
    samples = [_read(sample, windows, groups)[2:] for sample in x]
    nan_cells = torch.stack([cells for cells, _ in samples]) if samples else x.new_zeros(0, groups, 1)
    skipped = is_skipped(nan_cells, samples[0][1], threshold) if samples else nan_cells.bool()
    return skipped.reshape(len(x), groups, *windows.out_grid)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _read(sample: Tensor, windows: Windows, groups: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read every window of one sample.

    Args:
        sample: (C, *spatial).
        windows: The geometry.
        groups: Number of groups.

    Returns:
        Values (groups, C/groups, outputs, kernel) with zeros for padding and gaps, their NaN mask, and the
        number of NaN cells (groups, outputs) and of all cells (outputs,) of each window.
    """
    table = windows.table(sample.device)
    values = sample.flatten(1)[:, table.clamp(min=0)].masked_fill(table < 0, 0.0)
    values = values.unflatten(0, (groups, -1))
    nan = values.isnan()
    cells = (table != GAP).sum(1) * values.shape[1]
    return values, nan, nan.sum((1, 3)), cells


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, windows: Windows, threshold: float) -> Tensor:
    """Apply equations 1 and 2.

    Args:
        x: (N, C, *spatial).
        weight: (groups, C_out/groups, C/groups, kernel volume).
        bias: (C_out,) or None.
        windows: The geometry.
        threshold: NaN share.

    Returns:
        (N, C_out, *out_grid).
    """
    wide = _accumulator(x.dtype)
    outputs = []
    for sample in x:
        values, nan, nan_cells, cells = _read(sample, windows, weight.shape[0])
        real = values.masked_fill(nan, 0.0).to(wide)
        mean = real.sum((1, 3)) / (cells - nan_cells)
        filled = torch.where(nan, mean[:, None, :, None], real)
        out = torch.einsum("gcok,gdck->gdo", filled, weight.to(wide)).flatten(0, 1)
        out = out if bias is None else out + bias.to(wide)[:, None]
        skipped = is_skipped(nan_cells, cells, threshold).repeat_interleave(weight.shape[1], 0)
        outputs.append(out.to(x.dtype).masked_fill(skipped, torch.nan))
    return torch.stack(outputs).reshape(len(x), -1, *windows.out_grid)
