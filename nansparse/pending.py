"""Point-wise steps that are put off until their result is asked for, and then done in one pass over memory.

What follows a convolution in most networks (a norm, a maximum or a sum with another activation, a ReLU) costs
little arithmetic and a read and a write of every row for each step. `Pending` notes the steps instead. It
serves float32 on CPUs with numba, and GPUs with Triton; anything else is computed at once, by torch.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nansparse.compiled import Kernels, kernels_for
from nansparse.compiled.availability import Held
from nansparse.errors import NansparseError
from nansparse.fused import Fused, fused_for
from nansparse.pool import empty_rows

if TYPE_CHECKING:
    from nansparse.activation import SparseActivation


_CHANGED = (
    "the input of a batch norm, or what its result was combined with, was changed in place where nansparse "
    "does not see it (by a scripted function, say) before the result was used: use the out-of-place "
    "operation, or .clone() first"
)
# How the cells of two activations are combined, by name of the torch function: the kind, and the sign that
# makes a difference a sum and a minimum a maximum.
NOTHING, SUM, PRODUCT, EXTREME = range(4)
OPERATIONS = {
    "maximum": (EXTREME, 1.0),
    "add": (SUM, 1.0),
    "sub": (SUM, -1.0),
    "mul": (PRODUCT, 1.0),
    "minimum": (EXTREME, -1.0),
}


def steps_for(x: Held) -> Kernels | Fused | None:
    """Find what can do several steps at once for a tensor or an activation.

    Args:
        x: What they would work on.

    Returns:
        The compiled loops on a CPU, the kernels on a GPU; None where there is neither.
    """
    return kernels_for(x) or fused_for(x)


@dataclass(frozen=True)
class Pending:
    """Rows that were not computed yet, always in this order: scaled and shifted, combined, bent.

    Attributes:
        kernels: The loops that will do it.
        rows: (R, C), what to start from.
        at: int64 (P,), the row in `rows` of each result; empty if they are in order.
        scale: (S, C), one line a part of `rows`.
        shift: (S, C).
        ends: int64 (S + 1,), where the rows of each part end, 0 in front.
        other: (T, C), what to combine with.
        other_at: int64 (P,), as `at`.
        count: P.
        slope: (C,), what is not positive is multiplied with; None for ReLU, or where there is no last step.
        kind: How to combine; 0 for not at all.
        sign: 1, or -1 for a difference or a minimum.
        is_bent: Whether there is a last step.
        source: The activation whose values are bent: if it is still in use, they are written as well.
        seen: What others can change as well, and its version when the step was put off.
    """

    kernels: Kernels | Fused
    rows: Tensor
    at: Tensor
    scale: Tensor
    shift: Tensor
    ends: Tensor
    other: Tensor
    other_at: Tensor
    count: int
    slope: Tensor | None = None
    kind: int = 0
    sign: float = 1.0
    is_bent: bool = False
    source: weakref.ref[SparseActivation] | None = None
    seen: tuple[tuple[Tensor, int], ...] = ()

    @classmethod
    def start(cls, kernels: Kernels | Fused, rows: Tensor) -> Pending:
        """Begin without any step.

        Args:
            kernels: The loops.
            rows: (R, C).

        Returns:
            The rows as they are.
        """
        # Adding minus zero keeps the sign of every zero.
        lines = rows.new_ones(1, rows.shape[1]), rows.new_full((1, rows.shape[1]), -0.0)
        return cls.scaled(kernels, rows, *lines, torch.tensor([0, len(rows)]))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the result."""
        return (self.count, self.rows.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the result."""
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        """Where the result will live."""
        return self.rows.device

    @property
    def is_combined(self) -> bool:
        """Whether it is too late to be combined."""
        return self.kind > 0 or self.is_bent

    @classmethod
    def scaled(
        cls, kernels: Kernels | Fused, rows: Tensor, scale: Tensor, shift: Tensor, ends: Tensor
    ) -> Pending:
        """Begin with the first step.

        Args:
            kernels: What will do it.
            rows: (R, C).
            scale: (S, C), one line a part.
            shift: (S, C).
            ends: int64 (S + 1,), where the parts end, 0 in front.

        Returns:
            With this step.
        """
        nowhere = torch.empty(0, dtype=torch.int64, device=rows.device)
        return cls(kernels, rows, nowhere, scale, shift, ends, rows, nowhere, len(rows))

    def combined(self, name: str, other: Tensor, count: int, at: Tensor, other_at: Tensor) -> Pending:
        """Add the second step.

        Args:
            name: Of the torch function, one of `OPERATIONS`.
            other: (T, C).
            count: P, number of results.
            at: int64 (P,), which of the rows so far to combine; empty if they are in order.
            other_at: int64 (P,), with which of the others; empty if they are in order.

        Returns:
            With this step.
        """
        kind, sign = OPERATIONS[name]
        return replace(self, count=count, at=at, other=other, other_at=other_at, kind=kind, sign=sign)

    def bent(self, slope: Tensor | None, source: SparseActivation) -> Pending:
        """Add the last step.

        Args:
            slope: (C,), what is not positive is multiplied with; None for ReLU.
            source: The activation that has the values up to here.

        Returns:
            With this step.
        """
        return replace(self, slope=slope, is_bent=True, source=weakref.ref(source))

    def reading(self, x: Tensor) -> Pending:
        """Remember that a tensor is read which others can change.

        Args:
            x: The tensor.

        Returns:
            With that.
        """
        # In inference mode torch counts no versions.
        return self if x.is_inference() else replace(self, seen=(*self.seen, (x, x._version)))

    def run(self) -> Tensor:
        """Do all steps.

        Returns:
            The result, (P, C).

        Raises:
            NansparseError: If something that was to be read has been changed.
        """
        if any(x._version != version for x, version in self.seen):
            raise NansparseError(_CHANGED)
        source = self.source() if self.source is not None else None
        if source is not None and source.pending is None:
            start = Pending.start(self.kernels, source.values)
            return replace(start, slope=self.slope, is_bent=True).run()
        out = empty_rows(self.rows, *self.shape)
        before = empty_rows(out, self.count if source is not None else 0, self.shape[1])
        steps = (self.rows, self.at, self.scale, self.shift, self.ends, self.other, self.other_at)
        relu, slope = self.is_bent and self.slope is None, self.slope
        if slope is None:
            # Without a last step, what is not positive keeps its value; ReLU reads no slope.
            slope = self.scale[0] if relu else self.rows.new_ones(self.shape[1])
        how = (self.kind, self.sign, int(relu), slope)
        self.kernels.run(self.kernels.steps.run_steps, *steps, *how, into=(before, out))
        if source is not None:
            source.settle(before)
        return out
