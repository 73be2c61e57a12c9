"""The matrix product of the sparse engines, by the fastest library that torch carries."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Cells multiplied at a time. On a CPU: enough for the product to run at full speed, little enough to stay in
# cache. On a GPU: few launches, and less memory than an activation of the sizes that are worth a GPU.
_CELLS_ON_CPU, _CELLS_ON_GPU = 1_200_000, 1 << 26


def cells_per_chunk(device: torch.device) -> int:
    """Say how many cells to gather and multiply at a time.

    Args:
        device: Where they are.

    Returns:
        Their number.
    """
    return _CELLS_ON_CPU if device.type == "cpu" else _CELLS_ON_GPU


def product(cells: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute cells @ weight.T + bias.

    In float32 on CPUs `torch.nn.functional.linear` calls a library that reaches less than half the speed of
    the one that runs torch's convolutions (docs/engines.md); torch offers the latter's product to its own
    compiler, and it is called here where the build has it. On GPUs TF32 follows the setting for convolutions,
    which the product stands for, and not the one for matrix products.

    Args:
        cells: (m, K), contiguous.
        weight: (O, K), contiguous.
        bias: (O,) or None.

    Returns:
        (m, O).
    """
    if _has_convolution_library(cells) and len(cells) and cells.shape[1]:
        return torch.ops.mkldnn._linear_pointwise(cells, weight, bias, "none", [], "")
    if cells.is_cuda and cells.dtype == torch.float32 and len(cells) and cells.shape[1]:
        # Rows along the second axis of an image: a convolution that its library runs as a matrix product.
        image = cells.T[None, :, :, None]
        return F.conv2d(image, weight[:, :, None, None], bias)[0, :, :, 0].T
    return F.linear(cells, weight, bias)


def _has_convolution_library(cells: Tensor) -> bool:
    return (
        cells.device.type == "cpu"
        and cells.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def rounded(windows: int) -> int:
    """Round a number of rows up, so that few sizes occur: the library generates code for each size it meets.

    Args:
        windows: Rows of a product.

    Returns:
        A number of rows, at least 1 grain.
    """
    grain = 256 if windows > 2048 else 64
    return max(-(-windows // grain), 1) * grain


def tf32_is_allowed() -> bool:
    """Say whether torch's convolutions in float32 may use TF32.

    Returns:
        True if they may.
    """
    # torch refuses to answer the older question once the newer setting has been used.
    precision = getattr(getattr(torch.backends.cudnn, "conv", None), "fp32_precision", None)
    return torch.backends.cudnn.allow_tf32 if precision is None else precision == "tf32"
