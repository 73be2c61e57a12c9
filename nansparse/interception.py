"""How a running model's calls are caught.

A private `TorchFunctionMode` is entered around one call of the model (see `nansparse.session`), so that
functional calls, `.forward()` calls, worker threads and copies are seen alike. Each call goes one of five
ways:

* an operation of `nansparse.handlers` goes to its handler;
* a question about shape, dtype or device of a marked tensor is answered by the tensor itself;
* any other operation on a marked tensor gets the dense tensor, NaN included, and is recorded;
* on tensors without NaN, what follows a batch norm is put off and done in one pass (`nansparse.deferred`);
* everything else runs untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from nansparse.changes import changes_first, operation_name
from nansparse.deferred import Deferral
from nansparse.fallback import run_dense
from nansparse.marked import MarkedTensor
from nansparse.model_call import Handler, ModelCall
from nansparse.nesting import shallow_map
from nansparse.questions import is_question
from nansparse.tainted import VIEWS
from nansparse.uniform_regions import Rule


class CatchCalls(TorchFunctionMode):
    """Sends each call of a running model the way the head of this file says."""

    def __init__(
        self,
        call: ModelCall,
        handlers: dict[Any, Handler],
        always: frozenset[Any],
        steps: dict[Any, Callable[..., Any]],
        regions: dict[Any, Rule],
    ) -> None:
        """Keep what decides.

        Args:
            call: The state of the call.
            handlers: Torch function to handler.
            always: Functions that go to their handler even without a marked argument.
            steps: Torch function to what puts it off on tensors without NaN, see `nansparse.deferred`.
            regions: Torch function to what it does to uniform regions, see `nansparse.uniform_regions`.
        """
        super().__init__()
        self.call, self.handlers, self.always = call, handlers, always
        self.deferral, self.regions = Deferral(steps), regions

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Leave no step to be done."""
        super().__exit__(kind, error, trace)
        # What a hook kept outlives an error in the model, not an interrupt.
        if error is None or isinstance(error, Exception):
            self.deferral.finish()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Decide over one call, and follow the uniform regions of its arguments."""
        del types
        kwargs = kwargs or {}
        uniform = self.call.uniform
        if not uniform:
            return self._answered(func, args, kwargs)
        rule = self.regions.get(func)
        region = None if rule is None else rule(uniform, args, kwargs)
        result = self._answered(func, args, kwargs)
        uniform.note(result, region)
        return result

    def _answered(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.call.tainted:
            result = self.deferral.caught(func, args, kwargs)
            if result is not NotImplemented:
                return result
        given = args
        args, kwargs = self.deferral.settle(func, args, kwargs)
        if self.call.uniform:
            for before, after in zip(given, args, strict=True):
                self.call.uniform.hand_on(before, after)
        if self.call.tainted:
            if not _any_marked(args) and (is_question(func) or operation_name(func) in VIEWS):
                return tree_map(self._mark_copy, func(*args, **kwargs))
            args, kwargs = self._untainted(func, args, kwargs)
        result = self._routed(func, args, kwargs)
        if args is not given:
            # What torch hands back, as in-place operations do, is the very tensor that the model has.
            result = next((g for g, a in zip(given, args, strict=True) if result is a), result)
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
        if not marked or is_question(func):
            # A marked tensor answers itself, in whatever shape it is by now.
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
        first = first if changes_first(func, args, kwargs) else shallow_map(untaint, first)
        named = {k: v if k == "out" else shallow_map(untaint, v) for k, v in kwargs.items()}
        return (*first, *shallow_map(untaint, rest)), named


def _any_marked(values: Iterable[Any]) -> bool:
    for value in values:
        if isinstance(value, MarkedTensor):
            return True
        if isinstance(value, (list, tuple)) and any(isinstance(item, MarkedTensor) for item in value):
            return True
    return False
