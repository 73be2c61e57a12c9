"""Point-wise steps over rows in one Triton kernel: what `nansparse.pending` has put off."""

# Triton has no types, and what arguments are is said where they are named.
# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

CELLS_AT_ONCE = 1024


@triton.jit(do_not_specialize=["cells", "sign"])
def step_cells(
    rows,  # (R, channels)
    at,  # int64, row of each result; not read unless `listed`
    scale,  # float32 (parts, channels)
    shift,  # float32 (parts, channels)
    ends,  # int64 (parts + 1,)
    other,  # (T, channels)
    other_at,  # int64; not read unless `other_listed`
    slope,  # (channels,)
    before,  # written if `kept`: what is bent
    out,  # (results, channels), written
    cells,
    sign,
    channels: tl.constexpr,
    parts: tl.constexpr,
    kind: tl.constexpr,  # 0 nothing, 1 sum, 2 product, 3 extreme
    relu: tl.constexpr,
    listed: tl.constexpr,
    other_listed: tl.constexpr,
    kept: tl.constexpr,
    at_once: tl.constexpr,
):
    """Do the steps for some cells."""
    cell = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    live = cell < cells
    row = cell // channels
    c = cell - row * channels
    source = tl.load(at + row, mask=live, other=0) if listed else row
    line = tl.zeros((at_once,), dtype=tl.int64)
    for part in range(1, parts):
        line += (source >= tl.load(ends + part)).to(tl.int64)
    line = line * channels + c
    v = tl.load(rows + source * channels + c, mask=live, other=0.0).to(tl.float32)
    v = v * tl.load(scale + line, mask=live, other=0.0) + tl.load(shift + line, mask=live, other=0.0)
    if kind > 0:
        met = tl.load(other_at + row, mask=live, other=0) if other_listed else row
        o = tl.load(other + met * channels + c, mask=live, other=0.0).to(tl.float32)
        if kind == 1:
            v += sign * o
        elif kind == 2:
            v *= o
        else:
            larger = tl.where(sign * v > sign * o, v, o)
            v = tl.where(v != v, v, larger)
    if kept:
        tl.store(before + cell, v.to(before.dtype.element_ty), mask=live)
    if relu:
        v = tl.where(v <= 0, 0.0, v)
    else:
        bent = v * tl.load(slope + c, mask=live, other=0.0).to(tl.float32)
        v = tl.where(v > 0, v, bent)
    tl.store(out + cell, v.to(out.dtype.element_ty), mask=live)


def run_steps(
    rows: Tensor,
    at: Tensor,
    scale: Tensor,
    shift: Tensor,
    ends: Tensor,
    other: Tensor,
    other_at: Tensor,
    kind: int,
    sign: float,
    relu: int,
    slope: Tensor,
    before: Tensor,
    out: Tensor,
) -> None:
    """Do the steps for all rows; the arguments are those of `nansparse.pending.Pending`.

    Args:
        rows: (R, C), what to start from.
        at: int64 (P,), the row of each result; empty if they are in order.
        scale: (S, C), one line a part of the rows.
        shift: (S, C).
        ends: int64 (S + 1,), where the parts end.
        other: (T, C), what to combine with.
        other_at: int64 (P,), as `at`.
        kind: How to combine.
        sign: Of the other, or of both.
        relu: Whether to bend by ReLU.
        slope: (C,), else what is not positive is multiplied with.
        before: (P, C), written: what is bent; empty if nobody wants it.
        out: (P, C), written.
    """
    if not out.numel():
        return
    parts = len(scale)
    with torch.cuda.device_of(out):
        step_cells[(-(-out.numel() // CELLS_AT_ONCE),)](
            *(rows.contiguous(), at, scale.float().contiguous(), shift.float().contiguous()),
            *(ends.to(out.device) if parts > 1 else at, other.contiguous(), other_at, slope, before, out),
            *(out.numel(), float(sign)),
            channels=out.shape[1],
            parts=parts,
            kind=kind,
            relu=bool(relu),
            listed=bool(len(at)),
            other_listed=bool(len(other_at)),
            kept=bool(len(before)),
            at_once=CELLS_AT_ONCE,
        )
