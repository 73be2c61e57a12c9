"""How a running model's calls are caught.

A private `TorchFunctionMode` is entered around one call of the model (see `nansparse.session`), so that
functional calls, `.forward()` calls, worker threads and copies are seen alike. Each call goes one of four
ways:

* an operation of `nansparse.handlers` goes to its handler;
* a question about shape, dtype or device of a marked tensor is answered by the tensor itself;
* any other operation on a marked tensor gets the dense tensor, NaN included, and is recorded;
* everything else runs untouched.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from nansparse.activation import SparseActivation
from nansparse.fallback import changes_first, operation_name, run_dense
from nansparse.marked import MarkedTensor, Payload
from nansparse.nesting import with_changed
from nansparse.policy import Policy
from nansparse.questions import is_question
from nansparse.record import RunRecord
from nansparse.tainted import VIEWS, TaintedStorages
from nansparse.trials import Turn

Handler = Callable[["ModelCall", Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class ModelCall:
    """The state of one call of the model, in one thread.

    Attributes:
        policy: The options of the run.
        record: Where to write what was done.
        channels_last: Whether dense tensors are laid out channels last.
        names: Module id to dotted name.
        tainted: Plain tensors that the model wrote NaN into.
        holds_nan: Whether anything was marked so far.
        turn: The call's part in the trials of `marking="when-it-pays"`; None when every layer marks.
    """

    turn: Turn | None = None
    holds_nan = False

    def __init__(self, policy: Policy, record: RunRecord, model: nn.Module, *, channels_last: bool) -> None:
        """Name the modules.

        Args:
            policy: The options of the run.
            record: Where to write what was done.
            model: The model that is called.
            channels_last: Whether dense tensors are laid out channels last.
        """
        self.policy, self.record, self.channels_last = policy, record, channels_last
        self.names = {id(module): name for name, module in model.named_modules()}
        self.tainted = TaintedStorages()

    def wrap(self, payload: Payload, view_of: MarkedTensor | None = None) -> MarkedTensor:
        """Hand a payload to the model.

        Args:
            payload: What the tensor stands for.
            view_of: The tensor whose memory it would share in a dense run.

        Returns:
            The marked tensor.
        """
        self.record.marked = self.holds_nan = True
        return MarkedTensor(payload, channels_last=self.channels_last, view_of=view_of)

    def mark(self, x: Tensor) -> Tensor:
        """Mark a dense tensor if it holds NaN.

        Args:
            x: Any tensor.

        Returns:
            The tensor itself without NaN; else a marked one, sparse if it is (N, C, *spatial).
        """
        return x if isinstance(x, MarkedTensor) or not _holds_nan(x) else self._marked(x)

    def _marked(self, x: Tensor, view_of: MarkedTensor | None = None) -> MarkedTensor:
        return self.wrap(SparseActivation.from_dense(x) if _is_spatial(x) else x, view_of)

    def marked_inputs(self, values: Any) -> Any:
        """Scan the inputs of the model once, and mark those that hold NaN.

        Args:
            values: Arguments, nested as they are.

        Returns:
            The arguments, with marked tensors in place of those.
        """

        def mark(value: Tensor) -> Tensor:
            return self._marked(value.as_subclass(Tensor)) if _holds_nan(value) else value

        return with_changed(values, mark)

    def mark_view(self, x: Tensor, base: MarkedTensor) -> Tensor:
        """Mark a dense view of a marked tensor, NaN or not: whoever changes one of the two changes the other.

        Args:
            x: A view of what `base.dense()` gave.
            base: The tensor it views.

        Returns:
            The marked tensor.
        """
        return self._marked(x, base)

    def untaint(self, value: Any) -> Any:
        """Mark a plain tensor that NaN was written into.

        Args:
            value: Any argument.

        Returns:
            The argument, or a marked tensor in its place.
        """
        return self.mark(value) if self.tainted.holds(value) else value

    def layer(self) -> str:
        """Find the innermost module whose method is running.

        Returns:
            Its dotted name; empty for the model itself or a plain function.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self.names:
                return self.names[id(owner)]
            frame = frame.f_back
        return ""

    @contextmanager
    def recorded(self, operation: str) -> Iterator[dict[str, Any]]:
        """Time an operation and record it.

        Args:
            operation: Its name.

        Yields:
            A dictionary to fill with "engine" and the counts of `LayerRecord`.
        """
        facts: dict[str, Any] = {"engine": "torch"}
        start = time.perf_counter()
        yield facts
        facts["seconds"] = time.perf_counter() - start
        self.record.add(self.layer(), operation, **facts)


class CatchCalls(TorchFunctionMode):
    """Sends each call of a running model the way the head of this file says."""

    def __init__(self, call: ModelCall, handlers: dict[Any, Handler], always: frozenset[Any]) -> None:
        """Keep what decides.

        Args:
            call: The state of the call.
            handlers: Torch function to handler.
            always: Functions that go to their handler even without a marked argument.
        """
        super().__init__()
        self.call, self.handlers, self.always = call, handlers, always

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Decide over one call."""
        del types
        kwargs = kwargs or {}
        if self.call.tainted:
            if not _any_marked(args) and (is_question(func) or operation_name(func) in VIEWS):
                return tree_map(self._mark_copy, func(*args, **kwargs))
            args, kwargs = self._untainted(func, args, kwargs)
        result = self._routed(func, args, kwargs)
        if func is Tensor.__getitem__ and isinstance(result, MarkedTensor):
            result.index = args[1]
        return result

    def _routed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        marked = _any_marked(args) or bool(kwargs and _any_marked(kwargs.values()))
        if not marked and func not in self.always:
            return func(*args, **kwargs)
        handler = self.handlers.get(func)
        result = handler(self.call, func, args, kwargs) if handler is not None else NotImplemented
        if result is not NotImplemented:
            return result
        if not marked:
            return func(*args, **kwargs)
        if is_question(func):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        return run_dense(self.call, func, args, kwargs)

    def _mark_copy(self, value: Any) -> Any:
        """Mark what is no view of a plain tensor that NaN was written into; the views stay plain."""
        return (
            value
            if not isinstance(value, Tensor) or self.call.tainted.holds(value)
            else self.call.mark(value)
        )

    def _untainted(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Mark the plain arguments that NaN was written into, but the one that is written to."""
        untaint = self.call.untaint
        first, rest = args[:1], args[1:]
        first = first if changes_first(func, args, kwargs) else _shallow_map(untaint, first)
        named = {k: v if k == "out" else _shallow_map(untaint, v) for k, v in kwargs.items()}
        return (*first, *_shallow_map(untaint, rest)), named


def _is_spatial(x: Tensor) -> bool:
    return x.dim() in (4, 5) and x.is_floating_point()


def _holds_nan(x: Any) -> bool:
    # The sum is cheap and settles nearly all cases; infinities that meet make it NaN too.
    floats = isinstance(x, Tensor) and x.is_floating_point()
    return floats and bool(x.sum().isnan()) and bool(x.isnan().any())


def _any_marked(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, MarkedTensor):
            return True
        if isinstance(value, (list, tuple)) and any(isinstance(item, MarkedTensor) for item in value):
            return True
    return False


def _shallow_map(change: Callable[[Any], Any], values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _shallow_map(change, value) for key, value in values.items()}
    if type(values) in (list, tuple):
        return type(values)(_shallow_map(change, value) for value in values)
    return change(values)
