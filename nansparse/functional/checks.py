"""Checks of the tensors handed to the definitions, and their wording."""

import torch
from torch import Tensor

from nansparse.errors import InputError

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_activation(x: Tensor, name: str = "x") -> int:
    """Check that a tensor is a batched 2D or 3D activation.

    Args:
        x: Tensor (N, C, *spatial).
        name: Its name, for the message.

    Returns:
        The number of spatial axes, 2 or 3.

    Raises:
        InputError: If the rank or the dtype is not supported.
    """
    if not isinstance(x, Tensor) or x.dim() not in (4, 5):
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"{name} must be (N, C, H, W) or (N, C, D, H, W), got {shape}")
    if x.dtype not in FLOAT_DTYPES:
        raise InputError(f"{name} must be float16, bfloat16, float32 or float64, got {x.dtype}")
    return x.dim() - 2


def check_weight(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, *, transposed: bool = False
) -> None:
    """Check that a convolution's weight and bias fit the activation.

    Args:
        x: Tensor (N, C, *spatial).
        weight: (C_out, C/groups, *kernel), or (C, C_out/groups, *kernel) when transposed.
        bias: (C_out,) or None.
        groups: Number of groups.
        transposed: Whether the weight belongs to a transposed convolution.

    Raises:
        InputError: If ranks, channels, groups or dtypes do not fit each other.
    """
    if weight.dim() != x.dim():
        raise InputError(
            f"weight must have {x.dim()} axes for input {tuple(x.shape)}, got {tuple(weight.shape)}"
        )
    others = [t for t in (weight, bias) if t is not None]
    if any(t.dtype != x.dtype for t in others):
        found = ", ".join(str(t.dtype) for t in others)
        raise InputError(f"input is {x.dtype} but weight and bias are {found}: use one dtype, or autocast")
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    out_channels = weight.shape[1] * groups if transposed else weight.shape[0]
    if groups < 1 or x.shape[1] != channels or channels % groups or out_channels % groups:
        raise InputError(
            f"weight {tuple(weight.shape)} with groups={groups} expects {channels} input channels in equal "
            f"groups, got input {tuple(x.shape)}"
        )
    if bias is not None and bias.shape != (out_channels,):
        raise InputError(f"bias must be ({out_channels},), got {tuple(bias.shape)}")
