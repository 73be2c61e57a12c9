"""`enable`: put nansparse around one model, and take it off again whatever happens inside.

The model's class is swapped for a subclass whose `forward` enters the interception. That works in whichever
thread calls the model, for `.forward()` calls, deep copies and replicas, keeps isinstance and state_dict, and
touches no attribute of any module; putting the class back undoes everything.
"""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import nn

from nansparse.engine import registry
from nansparse.errors import BrokenEngineWarning, EnableError, NothingToDoWarning
from nansparse.handlers import ALWAYS, HANDLERS, REGIONS, STEPS
from nansparse.interception import CatchCalls
from nansparse.model_call import ModelCall
from nansparse.policy import ALWAYS as MARKING_ALWAYS
from nansparse.policy import Policy
from nansparse.pool import RowPool
from nansparse.preflight import check_call, check_model, unwrapped
from nansparse.record import RunRecord
from nansparse.results import InputForm, released
from nansparse.swap import enabled_class, put_back, put_back_copies
from nansparse.trials import Turn

_running = threading.local()


class Session:
    """A `with` block in which a model runs under one policy.

    Attributes:
        model: The model.
        policy: The options.
        record: What was done so far.
    """

    def __init__(
        self, model: nn.Module, policy: Policy, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Check the model and the engine.

        Args:
            model: The model.
            policy: The options.
            clock: Seconds, for the trials of `marking="when-it-pays"`.
        """
        self._clock = clock
        self.model = unwrapped(model)
        self.policy = policy
        put_back_copies(self.model)
        check_model(self.model)
        if policy.engine != "auto":
            registry.usable(policy.engine)
        self.record = RunRecord(policy)
        for name, fault in registry.faults().items():
            self.record.faults[name] = f"could not be loaded: {fault}"
        self._original: type[nn.Module] | None = None
        self._pool = RowPool()

    def __enter__(self) -> RunRecord:
        """Swap the class.

        Returns:
            The record, which fills as the model runs.

        Raises:
            EnableError: If the model is enabled already, or this session was entered before.
        """
        if self._original is not None:
            raise EnableError(
                "this session is entered already: call nansparse.enable again for another block"
            )
        check_model(self.model)
        self._original, self._pool = type(self.model), RowPool()
        self.model.__class__ = enabled_class(self._original, self)
        return self.record

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Literal[False]:
        """Put the class back.

        Returns:
            False: errors pass through.
        """
        original, self._original = self._original, None
        if original is not None:
            put_back(self.model, original)
            self._pool.close()
        if error is None:
            for sentence in self.record.advice():
                warnings.warn(f"nansparse: {sentence}", NothingToDoWarning, stacklevel=2)
            for sentence in self.record.broken_engines():
                warnings.warn(f"nansparse: {sentence}", BrokenEngineWarning, stacklevel=2)
        return False

    @property
    def active(self) -> bool:
        """Whether the block is running."""
        return self._original is not None

    def run(self, model: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call of the model.

        Args:
            model: The model, or a copy of it.
            forward: Its own forward.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Returns:
            What the model returns, NaN replaced as the policy says.

        Raises:
            EnableError: If the call cannot run here, with the remedy.
            RuntimeError: Whatever the model raises; in place of TorchScript's, what nansparse refused.
        """
        if getattr(_running, "session", None) is not None:
            if _running.session is self:
                return forward(*args, **kwargs)
            raise EnableError(
                "a model that is enabled was called inside another enabled model: enable the outer one only"
            )
        self.record.called = True
        form = InputForm.of((args, kwargs), model)
        check_call(model, form)
        trials = self.record.trials
        call = ModelCall(self.policy, self.record, model, channels_last=form.channels_last)
        call.turn = turn = trials.begin() if trials is not None else None
        _running.session = self
        start = self._now(turn, form)
        try:
            args, kwargs = call.marked_inputs(args), call.marked_inputs(kwargs)
            with self._pool.serve():
                with torch.no_grad():
                    # Where nothing can mark or repeat, there is nothing to catch, and catching has its price.
                    idle = (
                        trials is not None and trials.nothing_marks and not (call.holds_nan or call.uniform)
                    )
                    with nullcontext() if idle else CatchCalls(call, HANDLERS, ALWAYS, STEPS, REGIONS):
                        out = forward(*args, **kwargs)
                out = released(out, call, form)
        except RuntimeError as error:
            if call.refusal is None or "TorchScript" not in str(error):
                raise
            raise call.refusal from error
        finally:
            _running.session, call.over = None, True
            call.uniform.clear()
        if trials is not None and turn is not None:
            trials.finish(turn, self._now(turn, form) - start, form.cells)
        self.record.finish_forward()
        return out

    def _now(self, turn: Turn | None, form: InputForm) -> float:
        """Read the clock; in a trial on a GPU, after what runs there is done."""
        if turn is not None and turn.trial is not None and form.device.type == "cuda":
            torch.cuda.synchronize(form.device)
        return self._clock()


def enable(
    model: nn.Module,
    *,
    mode: str = "conservative",
    threshold: float = 0.5,
    epsilon: float = 1e-7,
    max_ties: int = 1,
    nan_probability: float = 1.0,
    engine: str = "auto",
    output_nan: float | Literal["keep"] = 0.0,
    generator: torch.Generator | None = None,
    statistics_nan: float | Literal["ignore"] = "ignore",
    marking: str = MARKING_ALWAYS,
) -> Session:
    """Run a trained 2D or 3D CNN with NaN-aware pooling and sparse convolutions (arXiv 2601.17180).

    ```
    with nansparse.enable(model) as run:
        y = model(x)
    print(run.summary())
    ```

    Args:
        model: A model in eval mode. Its weights and code stay as they are.
        mode: "conservative" (max unpooling puts NaN at tied cells) or "aggressive" (max pooling puts NaN at
            unstable windows).
        threshold: NaN share of a convolution window from which on it is skipped; in (0, 1].
        epsilon: Relative tolerance of a tie.
        max_ties: A pooling window is unstable when more cells tie.
        nan_probability: Aggressive mode: share of the unstable windows that become NaN.
        engine: "auto", or the name of a registered engine.
        output_nan: What NaN becomes when the model returns: a number, or "keep".
        generator: Source of random numbers, needed when nan_probability < 1.
        statistics_nan: "ignore": instance, group and layer normalization and averages over the grid are taken
            over the real values only; a number: every NaN cell counts as that number in them.
        marking: "always"; "when-it-pays": the first calls measure at which pooling layers marking makes the
            model faster, and the others go back to pooling as usual (on a GPU these calls wait for it); or
            "never": pooling marks nothing, so that without NaN at the input the result is that of a dense
            run, and what is saved are the repeats of a uniform background.

    Returns:
        A context manager whose value is the run's record.

    Raises:
        InputError: If an option is outside what is supported.
        EnableError: If the model cannot run this way: training mode, TorchScript, compiled, enabled already.
    """
    policy = Policy(
        mode,
        threshold,
        epsilon,
        max_ties,
        nan_probability,
        engine,
        output_nan,
        generator,
        statistics_nan,
        marking,
    )
    return Session(model, policy)


def is_enabled(model: nn.Module) -> bool:
    """Say whether a model is inside an `enable` block.

    Args:
        model: The model.

    Returns:
        True if it is.
    """
    session = getattr(type(model), "_nansparse_session", None)
    return session is not None and session.active
