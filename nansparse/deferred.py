"""Tensors without NaN whose last point-wise steps are put off, as those of marked activations are.

Until the first NaN a network runs as torch runs it. What follows a convolution there (a batch norm, a maximum
or a sum, a ReLU) then costs a read and a write of every cell for each step. `Deferral` notes these steps
(`nansparse.pending`) and does them in one pass, with the bits that torch would give, when anything else asks
for the values.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from nansparse.activation import SparseActivation
from nansparse.changes import may_change
from nansparse.nesting import shallow_map
from nansparse.questions import is_question
from nansparse.strides import strides_of


class DeferredTensor(torch.Tensor):
    """Stands for a channels-last tensor without marks whose values may still have to be computed.

    Attributes:
        activation: The values, or the steps that lead to them; every site is there.
    """

    activation: SparseActivation

    @staticmethod
    def __new__(cls: type[DeferredTensor], activation: SparseActivation) -> DeferredTensor:
        """Wrap an activation.

        Args:
            cls: The class.
            activation: What this tensor stands for.

        Returns:
            The wrapper.
        """
        shape = torch.Size(activation.shape)
        return torch.Tensor._make_wrapper_subclass(
            cls,
            shape,
            strides=strides_of(shape, channels_last=True),
            dtype=activation.dtype,
            device=activation.device,
        )

    def __init__(self, activation: SparseActivation) -> None:
        """Keep the activation."""
        self.activation = activation
        self._dense: Tensor | None = None
        self._lock = threading.Lock()

    def settled(self) -> Tensor:
        """Do the steps, once.

        Returns:
            The tensor, (N, C, *spatial); the same one every time.
        """
        with self._lock:
            if self._dense is None:
                self._dense = self.activation.to_dense()
            return self._dense

    def answer(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a question about shape, dtype and the like; nothing is computed for it.

        Args:
            func: The question.
            args: Its arguments; this tensor is the first.
            kwargs: Its keyword arguments.

        Returns:
            The answer; that of the values once they are there, which may have changed in place since.
        """
        with torch._C.DisableTorchFunctionSubclass():
            return func(self if self._dense is None else self._dense, *args[1:], **kwargs)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run anything outside of a run on the values, so that what a hook kept is like any tensor."""
        del types
        if is_question(func) and args and isinstance(args[0], DeferredTensor):
            return args[0].answer(func, args, kwargs or {})
        return func(*tree_map(settled, args), **tree_map(settled, kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub forgets that it is a classmethod
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run what no mode has caught (a scripted function, say) on the values."""
        del types
        return func(*tree_map(settled, args), **tree_map(settled, kwargs or {}))


class Deferral:
    """What is put off within one call of a model."""

    def __init__(self, steps: dict[Any, Callable[..., Any]]) -> None:
        """Start with nothing.

        Args:
            steps: Torch function to what puts it off; takes its arguments and gives a `DeferredTensor`, or
                `NotImplemented` where it has to be done.
        """
        self._steps = steps
        self._waiting: weakref.WeakSet[SparseActivation] = weakref.WeakSet()
        self._any = False

    def caught(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Put an operation off, or answer a question about a tensor that was.

        Args:
            func: The operation.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Returns:
            Its result; `NotImplemented` for whatever needs the values.
        """
        step = self._steps.get(func)
        # Under autocast steps have other types, and with gradients they would have to be recorded.
        if step is not None and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
            result = step(args, kwargs)
            if isinstance(result, DeferredTensor):
                self._any = True
                self._waiting.add(result.activation)
                return result
        if self._any and args and isinstance(args[0], DeferredTensor) and is_question(func):
            return args[0].answer(func, args, kwargs)
        return NotImplemented

    def settle(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Compute what an operation needs.

        Args:
            func: The operation.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Returns:
            The arguments, with values in place of what was put off.
        """
        if not self._any:
            return args, kwargs
        if may_change(func, args, kwargs):
            # What is about to change may be what a step was going to read.
            self.finish()
        return shallow_map(settled, args), shallow_map(settled, kwargs)

    def finish(self) -> None:
        """Compute all that is still in use, before something happens to what it would be read from."""
        for activation in list(self._waiting):
            activation.values  # noqa: B018 - asked for, so that it is computed
        self._waiting.clear()


def settled(value: Any) -> Any:
    """Compute a tensor that was put off, and leave anything else alone.

    Args:
        value: Anything.

    Returns:
        The plain tensor, or the value itself.
    """
    return value.settled() if isinstance(value, DeferredTensor) else value
