"""What a run did, layer by layer."""

from dataclasses import asdict
from threading import Lock
from typing import Any

import torch

from nansparse.layers import LayerRecord, layer_table, percent
from nansparse.policy import NEVER, WHEN_IT_PAYS, Policy
from nansparse.trials import MarkingTrials


class RunRecord:
    """Collects layer records; several threads may write to one.

    Attributes:
        policy: The options of the run.
        called: Whether the model was called at all.
        forwards: Number of finished calls of the model.
        marked: Whether anything held NaN so far.
        trials: What `marking="when-it-pays"` found out; None when every layer marks.
        faults: Engines that could not be loaded or that broke in this run, and what happened.
    """

    def __init__(self, policy: Policy) -> None:
        """Start empty.

        Args:
            policy: The options of the run.
        """
        self.policy = policy
        self.called = False
        self.forwards = 0
        self.marked = False
        self.faults: dict[str, str] = {}
        self.trials = MarkingTrials() if policy.marking == WHEN_IT_PAYS else None
        self._layers: dict[tuple[str, str, str], LayerRecord] = {}
        self._lock = Lock()

    def add(
        self,
        layer: str,
        operation: str,
        engine: str,
        *,
        note: str = "",
        forecast: dict[str, float] | None = None,
        **counts: float,
    ) -> None:
        """Add one call.

        Args:
            layer: Dotted name of the calling module.
            operation: Name of the PyTorch operation.
            engine: What ran it.
            note: Anything worth saying once.
            forecast: Predicted seconds by engine.
            **counts: Numbers to add to the fields of `LayerRecord`.
        """
        with self._lock:
            record = self._layers.setdefault(
                (layer, operation, engine), LayerRecord(layer, operation, engine)
            )
            record.calls += 1
            for name, number in counts.items():
                setattr(record, name, getattr(record, name) + number)
            for name, seconds in (forecast or {}).items():
                record.forecast[name] = record.forecast.get(name, 0.0) + seconds
            if note and note not in record.notes:
                record.notes.append(note)

    def clear(self) -> None:
        """Forget everything so far (a warm-up, say)."""
        with self._lock:
            self._layers.clear()
            self.forwards, self.marked = 0, False

    def finish_forward(self) -> None:
        """Count one finished call of the model."""
        with self._lock:
            self.forwards += 1

    @property
    def layers(self) -> list[LayerRecord]:
        """The records in the order in which the layers were first called."""
        with self._lock:
            return list(self._layers.values())

    @property
    def macs(self) -> int:
        """Multiply-adds of a dense run."""
        return sum(layer.macs for layer in self.layers)

    @property
    def macs_skipped(self) -> int:
        """Multiply-adds that were skipped."""
        return sum(layer.macs_skipped for layer in self.layers)

    @property
    def macs_repeated(self) -> int:
        """Multiply-adds of windows that repeat another one, of which only that was computed."""
        return sum(layer.macs_repeated for layer in self.layers)

    @property
    def windows(self) -> int:
        """Convolution windows of a dense run."""
        return sum(layer.windows for layer in self.layers if layer.macs)

    @property
    def windows_skipped(self) -> int:
        """Convolution windows that were skipped."""
        return sum(layer.windows_skipped for layer in self.layers if layer.macs)

    @property
    def densified(self) -> int:
        """How often a sparse activation had to be laid out for an operation."""
        return sum(layer.densified for layer in self.layers)

    def advice(self) -> list[str]:
        """Say what the caller should know about this run.

        Returns:
            Sentences; the first ones matter most.
        """
        operations = {layer.operation for layer in self.layers}
        pools = any(name.startswith("max_pool") for name in operations)
        unpools = any("unpool" in name for name in operations)
        says = []
        if not self.called:
            says.append(
                "nothing to do: the model was never called inside the block (calls of its parts, or of "
                "methods that do not end in its forward, are not seen)."
            )
        elif self.forwards and not self.marked and self.policy.marking == NEVER:
            if not self.macs_repeated:
                says.append(
                    "nothing to do: pooling was told to mark nothing, and no large part of the input is "
                    "uniform (it is looked for on CPUs in float32, channels last, with engine='auto')."
                )
        elif self.forwards and not self.marked:
            reason = "The pooling windows have no ties. " if pools else "The model has no max pooling. "
            if pools and not unpools and self.policy.mode == "conservative":
                reason = ""
            says.append(
                f"nothing to do: no NaN was marked, so nothing could be skipped. {reason}"
                "NaN at the input (a marked background) is the other way in."
            )
        marks = self.policy.marking != NEVER
        if marks and pools and not unpools and self.policy.mode == "conservative" and not self.marked:
            says.append(
                "conservative mode marks at max unpooling, and this model has none: only mode='aggressive' "
                "or NaN at the input can gain anything here."
            )
        return says

    def broken_engines(self) -> list[str]:
        """Say which engines could not be loaded or broke in this run.

        Returns:
            One sentence an engine, with what to do about it.
        """
        return [f"engine {name!r} {fault}" for name, fault in sorted(self.faults.items())]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON-able data.

        Returns:
            Policy, totals and one entry a layer.
        """
        layers = [asdict(layer) for layer in self.layers]
        totals = ["windows", "windows_skipped", "macs", "macs_skipped", "macs_repeated"]
        totals += ["densified", "forwards", "marked"]
        return {
            "policy": self.policy.to_dict(),
            "torch": torch.__version__,
            **{name: getattr(self, name) for name in totals},
            "advice": self.advice(),
            "broken_engines": self.broken_engines(),
            "marking": self.trials.to_dict() if self.trials is not None else None,
            "layers": layers,
        }

    def summary(self) -> str:
        """Give a table: layer, operation, engine, windows, skipped %, MACs saved, ms a call.

        Returns:
            The table, its totals, and what the caller should know.
        """
        lines = layer_table(self.layers)
        lines.append(
            f"{self.forwards} forward(s), {percent(self.windows_skipped, self.windows)} % of the "
            f"convolution windows and {percent(self.macs_skipped, self.macs)} % of the multiply-adds "
            f"skipped, {self.densified} densified"
        )
        if self.macs_repeated:
            lines.append(
                f"{percent(self.macs_repeated, self.macs)} % of the multiply-adds were repeats in a uniform "
                "background, of which one was computed (exact: nothing is skipped there)"
            )
        lines += self.trials.told() if self.trials is not None else []
        return "\n".join(line.rstrip() for line in [*lines, *self.advice(), *self.broken_engines()])
