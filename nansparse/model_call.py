"""The state of one call of a model, which handlers get with every operation."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from nansparse.activation import SparseActivation
from nansparse.changes import operation_name
from nansparse.deferred import settled as settled_steps
from nansparse.errors import NansparseError
from nansparse.fallback import run_dense
from nansparse.marked import MarkedTensor, Payload, densified, settled
from nansparse.nesting import with_changed
from nansparse.policy import Policy
from nansparse.record import RunRecord
from nansparse.tainted import TaintedStorages
from nansparse.trials import Turn
from nansparse.uniform import find_uniform
from nansparse.uniform_regions import UniformRegions

# Operations for which NaN has rules of its own, by what stands in their names.
DEFINED = re.compile(
    r"conv|max_pool|max_unpool|avg_pool|_norm|^(mean|var|std|var_mean|std_mean|linear|matmul|(add|b|badd?b)?mm)\b"
)
Handler = Callable[["ModelCall", Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


class ModelCall:
    """The state of one call of the model, in one thread.

    Attributes:
        policy: The options of the run.
        record: Where to write what was done.
        channels_last: Whether dense tensors are laid out channels last.
        names: Module id to dotted name.
        tainted: Plain tensors that the model wrote NaN into.
        uniform: Where tensors without NaN repeat themselves.
        holds_nan: Whether anything was marked so far.
        turn: The call's part in the trials of `marking="when-it-pays"`; None when every layer marks.
        over: Whether the model has returned.
        refusal: An error that may reach the caller as another one: TorchScript keeps the traceback only.
    """

    turn: Turn | None = None
    refusal: NansparseError | None = None
    holds_nan = over = False

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
        self.tainted, self.uniform = TaintedStorages(), UniformRegions()
        self._thread = threading.get_ident()

    def wrap(self, payload: Payload, view_of: MarkedTensor | None = None) -> MarkedTensor:
        """Hand a payload to the model.

        Args:
            payload: What the tensor stands for.
            view_of: The tensor whose memory it would share in a dense run.

        Returns:
            The marked tensor.
        """
        self.record.marked = self.holds_nan = True
        return MarkedTensor(payload, channels_last=self.channels_last, view_of=view_of, call=self)

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
        """Scan the inputs of the model once: mark those that hold NaN, find the background of the others.

        Args:
            values: Arguments, nested as they are.

        Returns:
            The arguments, with marked tensors in place of those.
        """

        def mark(value: Tensor) -> Tensor:
            # Those that an earlier run left behind.
            value = settled_steps(settled(value))
            if _holds_nan(value):
                return self._marked(value.as_subclass(Tensor))
            known = value.dim() in (4, 5) and value.dtype == torch.float32 and value.device.type == "cpu"
            if self.computes_once and known and value.numel():
                self.uniform.note(value, find_uniform(value))
            return value

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

    @property
    def computes_once(self) -> bool:
        """Whether windows that repeat each other are computed once: where the planner chooses the engine."""
        return self.policy.engine == "auto" and self.channels_last

    def untaint(self, value: Any) -> Any:
        """Mark a plain tensor that NaN was written into.

        Args:
            value: Any argument.

        Returns:
            The argument, or a marked tensor in its place.
        """
        return self.mark(value) if self.tainted.holds(value) else value

    def run_unseen(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation on marked tensors that no mode has caught, on dense tensors.

        Args:
            func: The operation.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Returns:
            Its result, marked where it holds NaN.

        Raises:
            NansparseError: If this is not the thread of the call, or NaN does not spread here as IEEE
                arithmetic has it.
        """
        name = operation_name(func)
        if name in ("__repr__", "__format__"):
            # Of a debugger, perhaps in a thread of its own.
            return func(*tree_map(densified, args), **kwargs)
        if threading.get_ident() != self._thread:
            raise NansparseError(
                f"{name} ran on a marked activation in another thread than the model, where nansparse does "
                "not see what follows: run all branches of the model in its own thread"
            )
        if DEFINED.search(name):
            self.refusal = NansparseError(
                f"{name} ran on a marked activation where nansparse does not see it (inside a scripted or "
                "traced function, or with torch functions disabled): call it from Python"
            )
            raise self.refusal
        with torch._C.DisableTorchFunction():
            return run_dense(self, func, args, kwargs)

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


def _is_spatial(x: Tensor) -> bool:
    return x.dim() in (4, 5) and x.is_floating_point()


def _holds_nan(x: Any) -> bool:
    # The sum is cheap and settles nearly all cases; infinities that meet make it NaN too.
    floats = isinstance(x, Tensor) and x.is_floating_point()
    return floats and bool(x.sum().isnan()) and bool(x.isnan().any())
