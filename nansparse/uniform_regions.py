"""Following uniform regions (`nansparse.uniform`) through one call of a model, tensor by tensor.

What is known is a hint: nobody watches what is changed in place. Who uses a region looks at the values first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from nansparse.deferred import DeferredTensor
from nansparse.uniform import Uniform

# A smaller share of the sites saves too little to be followed; so do regions of many different rows.
LEAST_SHARE = 0.1
MOST_CLASSES = 64
# Says what an operation does to the regions of its arguments; None where nothing is known of the result.
Rule = Callable[["UniformRegions", tuple[Any, ...], dict[str, Any]], "Uniform | None"]


class UniformRegions:
    """Which sites of which tensors repeat each other; tensors that are gone are forgotten."""

    def __init__(self) -> None:
        """Start with none."""
        self._found: Any = WeakTensorKeyDictionary()

    def __bool__(self) -> bool:
        """Say whether any is known, where tensors are what they seem.

        Returns:
            True if there is; never inside of a function transform, a trace, or where gradients are recorded.
        """
        transformed = torch._C._are_functorch_transforms_active() or torch.jit.is_tracing()  # type: ignore[attr-defined]
        return bool(self._found) and not transformed and not torch.is_grad_enabled()

    def clear(self) -> None:
        """Forget all: the state of a call may wait for the garbage collector, and masks are large."""
        self._found.clear()

    def note(self, x: Any, uniform: Uniform | None) -> None:
        """Note the region of a tensor, if it is worth it.

        Args:
            x: (N, C, *grid); anything else is not noted.
            uniform: Its region, or None.
        """
        if uniform is None or type(x) not in (Tensor, DeferredTensor) or x.layout != torch.strided:
            return
        fits = x.dim() > 2 and x.shape[:1] + x.shape[2:] == uniform.mask.shape
        if fits and uniform.classes <= MOST_CLASSES and uniform.share >= LEAST_SHARE:
            self._found[x] = uniform

    def of(self, x: Any) -> Uniform | None:
        """Give the region of a tensor.

        Args:
            x: Anything.

        Returns:
            The region that it had; None where none is known.
        """
        if not self or type(x) not in (Tensor, DeferredTensor):
            return None
        found: Uniform | None = self._found.get(x)
        return found

    def hand_on(self, given: Any, values: Any) -> None:
        """Tell a tensor's region of the values that were computed for it.

        Args:
            given: An argument of an operation.
            values: What it gets in its place; nothing happens if that is the argument itself.
        """
        if given is not values and self.of(values) is None:
            self.note(values, self.of(given))
