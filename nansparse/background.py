"""Marking what the caller knows to be empty: background becomes NaN at the input and is skipped throughout.

Background is found on the grid of sites, not channel by channel: a site is background when all its channels
are. Neighbouring slices in the channels (2.5D) are therefore marked where every slice of the stack is empty.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nansparse.errors import InputError

# What the commands keep around the rest where nobody says: the smallest margin at which every label keeps a
# Dice of 0.995 with the dense run inside the brain, at every threshold from 0.5 on. It is printed by
# `nansparse bench models --preset surface`.
USUAL_MARGIN = 2
MISSING = "finding the background needs scipy: pip install 'nansparse[imaging]' (or give mask=)"


def mask_background(
    x: Tensor,
    value: float | Sequence[float] | None = 0.0,
    margin: int | Sequence[int] = 0,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Put NaN where an image is background, so that a run under `nansparse.enable` skips it.

    Background is the constant region that touches the border of the image: sites whose channels all equal
    `value`, connected through their faces to the first or last cell of some axis. Constant regions inside
    the head (ventricles that a skull-stripping tool has emptied, say) stay as they are. With `mask`,
    background is what the mask leaves out.

    ```
    with nansparse.enable(model):
        y = model(nansparse.mask_background(x, margin=4))
    ```

    Args:
        x: (N, C, H, W) or (N, C, D, H, W), floating point. It is not changed.
        value: What background is: one number, one a channel, or None for the value that each sample and
            channel has in its first corner (an image normalized to zero mean has no round number there).
        margin: Cells around the foreground that stay as they are, diagonals included; one number, or one a
            spatial axis.
        mask: Foreground (a brain mask) over the spatial axes, (N, *spatial) or (N, 1, *spatial); nonzero
            is foreground. The samples may share one. `value` is not read then.

    Returns:
        A copy of x, of the same dtype, device and memory format, NaN in all channels of the background.

    Raises:
        InputError: If x is no batch of images, or value, margin or mask does not fit it; or if scipy is
            missing and no mask is given.
    """
    if not isinstance(x, Tensor) or x.dim() not in (4, 5):
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(
            f"x must be (N, C, H, W) or (N, C, D, H, W), got {shape}: a single image needs x[None]"
        )
    if not x.is_floating_point():
        raise InputError(f"x must be floating point to hold NaN, got {x.dtype}: convert it with .float()")
    margins = _margins(margin, x.dim() - 2)
    if mask is None:
        foreground = ~_touching_border(_constant(x, value))
    else:
        foreground = _given(mask, x)
    for axis, cells in enumerate(margins, start=1):
        foreground = _widened(foreground, axis, cells)
    # A clone keeps the memory format; masked_fill with a mask to broadcast does not.
    return x.clone().masked_fill_(~foreground[:, None], torch.nan)


def _constant(x: Tensor, value: float | Sequence[float] | None) -> Tensor:
    """Find the sites whose channels all have the background's value, or hold NaN already: (N, *spatial)."""
    plain = x.detach().as_subclass(Tensor)
    ones = (1,) * (x.dim() - 2)
    if value is None:
        level = plain[:, :, :1, :1] if len(ones) == 2 else plain[:, :, :1, :1, :1]
    else:
        try:
            level = torch.as_tensor(value, dtype=x.dtype, device=x.device).flatten()
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"value must be a number, one number a channel, or None, got {value!r}"
            ) from error
        if len(level) not in (1, x.shape[1]):
            raise InputError(
                f"value must be one number, or one for each of {x.shape[1]} channels, got {value!r}"
            )
        level = level.view(1, -1, *ones)
    constant = plain == level
    if bool(plain.sum().isnan()):  # quicker than to ask every cell
        constant |= plain.isnan()
    return constant.all(1)


def _touching_border(constant: Tensor) -> Tensor:
    """Keep the connected regions that reach the border, (N, *spatial)."""
    if constant.is_cuda and constant.numel():
        return _flooded(constant)
    try:
        from scipy.ndimage import label
    except ImportError as error:
        raise InputError(MISSING) from error
    kept = torch.empty_like(constant, device="cpu")
    for sample, out in zip(constant.cpu(), kept, strict=True):
        # Faces of a cell connect it to its neighbours: scipy's default.
        numbers = torch.from_numpy(label(sample.numpy())[0])
        chosen = torch.zeros(int(numbers.max()) + 1 if numbers.numel() else 1, dtype=torch.bool)
        for axis, size in enumerate(numbers.shape):
            for end in {0, size - 1} if numbers.numel() else ():
                chosen[numbers.select(axis, end).flatten().long()] = True
        chosen[0] = False
        out.copy_(chosen[numbers.long()])
    return kept.to(constant.device)


def _flooded(constant: Tensor) -> Tensor:
    """Do what `_touching_border` does without leaving the device: flood from the border, axis by axis."""
    reached = torch.zeros_like(constant)
    axes = range(1, constant.dim())
    for axis in axes:
        for end in (0, constant.shape[axis] - 1):
            reached.select(axis, end).copy_(constant.select(axis, end))
    count = -1
    while count != (count := int(reached.sum())):
        for axis in axes:
            reached = _swept(constant, reached, axis)
            reached = _swept(constant.flip(axis), reached.flip(axis), axis).flip(axis)
    return reached


def _swept(constant: Tensor, reached: Tensor, axis: int) -> Tensor:
    """Reach what lies behind a reached cell along an axis, with nothing but constant cells between."""
    shape = [-1 if other == axis else 1 for other in range(constant.dim())]
    place = torch.arange(constant.shape[axis], dtype=torch.int32, device=constant.device).view(shape)
    # The last cell that is either reached (odd) or in the way (even); 0 before there is one.
    last = torch.where(constant, (2 * place + 3) * reached, 2 * place + 2).cummax(axis).values
    return constant & (last % 2 == 1)


def _given(mask: Any, x: Tensor) -> Tensor:
    """Bring a mask to (N, *spatial)."""
    spatial = x.shape[2:]
    allowed = {(*spatial,), *((n, *one, *spatial) for n in (1, x.shape[0]) for one in ((), (1,)))}
    if not isinstance(mask, Tensor) or tuple(mask.shape) not in allowed:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"mask must be a tensor over the spatial axes {tuple(spatial)} of x, got {shape}")
    found = mask.detach().as_subclass(Tensor).to(x.device) != 0
    found = found[:, 0] if found.dim() == x.dim() else found
    return found.expand(x.shape[0], *spatial)


def _margins(margin: Any, rank: int) -> list[int]:
    values = [margin] * rank if isinstance(margin, int) else margin
    ok = isinstance(values, Sequence) and len(values) == rank
    if not ok or any(isinstance(m, bool) or not isinstance(m, int) or m < 0 for m in values):
        raise InputError(
            f"margin must be an integer >= 0, or one for each of {rank} spatial axes, got {margin!r}"
        )
    return list(values)


def _widened(foreground: Tensor, axis: int, cells: int) -> Tensor:
    """Add the cells within a distance along one axis."""
    size, reach = foreground.shape[axis], 0
    cells = min(cells, size - 1)
    while reach < cells:
        # Shifted by one more than it reaches, what is cut off at the border still meets itself.
        shift = min(cells - reach, reach + 1)
        wider = foreground.clone()
        for start, source in ((shift, 0), (0, shift)):
            rest = size - shift
            wider.narrow(axis, start, rest).logical_or_(foreground.narrow(axis, source, rest))
        foreground, reach = wider, reach + shift
    return foreground
