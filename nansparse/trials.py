"""`marking="when-it-pays"`: measure at which pooling layers marking makes the model faster, and keep those.

The first calls of a run are trials. One pooling layer after the other is judged: calls in which it marks
alternate with calls in which it pools as usual, everything else as decided so far, and the whole call is
timed, because what marking gains lies in the layers that follow. What is kept is judged once more together
against no marking at all. After that, nothing is measured and the decisions stay.
"""

from __future__ import annotations

import statistics
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

# Calls before the first trial: memory, caches and calibrations settle.
WARM_UP = 2
# Calls with and calls without marking that a decision takes.
PAIRS = 3
# Marking changes results a little, so it has to make the call faster by more than this share.
GAIN = 0.02
TOGETHER = "(all that is kept)"


@dataclass(frozen=True)
class Decision:
    """What was found out about one pooling layer.

    Attributes:
        layer: Its dotted name; `TOGETHER` for all layers that were kept, against none.
        kept: Whether it marks from here on.
        seconds_with: Median time of a call of the model with its marks.
        seconds_without: The same without.
    """

    layer: str
    kept: bool
    seconds_with: float
    seconds_without: float


class Turn:
    """The part that one call of the model has in the trials; a pooling layer asks it whether to mark.

    Attributes:
        stage: Number of the trial it was begun in.
        trial: Whether it counts as a call with (True) or without marking (False); None if it is no trial.
        seen: Names of the pooling layers that asked, in order.
    """

    def __init__(self, stage: int, trial: bool | None, silent: frozenset[str]) -> None:
        """Begin.

        Args:
            stage: Number of the trial.
            trial: With marking, without, or no trial.
            silent: Layers that do not mark in this call.
        """
        self.stage, self.trial, self.seen = stage, trial, list[str]()
        self._silent = silent
        self._calls: Counter[str] = Counter()

    def marks(self, layer: str) -> bool:
        """Say whether a pooling layer marks in this call.

        Args:
            layer: Its dotted name; the second call of the same layer counts as a layer of its own.

        Returns:
            True if it does.
        """
        self._calls[layer] += 1
        number = self._calls[layer]
        name = (layer or "(model)") + (f" (call {number})" if number > 1 else "")
        self.seen.append(name)
        return name not in self._silent


class MarkingTrials:
    """Decides for one run; threads may share it."""

    def __init__(self) -> None:
        """Start with the warm-up, in which every layer marks."""
        self._lock = threading.Lock()
        self._stage = -WARM_UP
        self._layers: list[str] = []
        self._silent: frozenset[str] = frozenset()
        self._begun = 0
        self._times: dict[bool, list[float]] = {True: [], False: []}
        self._decisions: list[Decision] = []
        self._over = False

    def begin(self) -> Turn:
        """Begin a call of the model.

        Returns:
            Its part.
        """
        with self._lock:
            if self._over or self._stage < 0:
                return Turn(self._stage, None, self._silent)
            # With, without, without, with: a machine that slows down steadily favours neither.
            with_marks = self._begun % 4 in (0, 3)
            self._begun += 1
            rest = frozenset(self._layers if self._is_last else [self._layers[self._stage]])
            return Turn(self._stage, with_marks, self._silent if with_marks else self._silent | rest)

    def finish(self, turn: Turn, seconds: float, cells: int) -> None:
        """Take the time of a call that ended well.

        Args:
            turn: Its part.
            seconds: How long it took.
            cells: Cells of its input: calls on larger inputs may take longer.
        """
        with self._lock:
            if self._over or turn.stage != self._stage:
                return  # it began before the last decision: what it measured is settled
            if self._stage < 0:
                self._layers = list(dict.fromkeys([*self._layers, *turn.seen]))
                self._stage += 1
                self._over = self._stage == 0 and not self._layers
            elif turn.trial is not None:
                self._times[turn.trial].append(seconds / max(cells, 1))
                if min(map(len, self._times.values())) >= PAIRS:
                    self._decide(cells)

    @property
    def _is_last(self) -> bool:
        return self._stage == len(self._layers)

    def _decide(self, cells: int) -> None:
        """Decide the trial at hand and go on to the next."""
        with_marks, without = (statistics.median(self._times[arm]) for arm in (True, False))
        kept = with_marks < (1.0 - GAIN) * without
        layer = TOGETHER if self._is_last else self._layers[self._stage]
        self._decisions.append(Decision(layer, kept, with_marks * cells, without * cells))
        if not kept:
            self._silent = frozenset(self._layers) if self._is_last else self._silent | {layer}
        # With nothing kept there is nothing left to judge, and with one layer it was judged already.
        nothing_left = len(self._silent) == len(self._layers) or len(self._layers) == 1
        self._over = self._is_last or (self._stage + 1 == len(self._layers) and nothing_left)
        self._stage += 1
        self._begun = 0
        self._times = {True: [], False: []}

    @property
    def decided(self) -> bool:
        """Whether the trials are over."""
        with self._lock:
            return self._over

    @property
    def nothing_marks(self) -> bool:
        """Whether the trials are over and every layer pools as usual."""
        with self._lock:
            return self._over and len(self._silent) == len(self._layers)

    def to_dict(self) -> dict[str, Any]:
        """Give what was found out as JSON-able data.

        Returns:
            "decided", "marking" (the layers that mark, as far as known), and "decisions".
        """
        with self._lock:
            marking = [layer for layer in self._layers if layer not in self._silent]
            decisions = [asdict(decision) for decision in self._decisions]
            return {"decided": self._over, "marking": marking, "decisions": decisions}

    def told(self) -> list[str]:
        """Say what was found out.

        Returns:
            Sentences.
        """
        found = self.to_dict()
        says = [
            f"marking at {d['layer']}: {'kept' if d['kept'] else 'stopped'} "
            f"({1e3 * d['seconds_with']:.2f} ms a call with it, {1e3 * d['seconds_without']:.2f} ms without)"
            for d in found["decisions"]
        ]
        if not found["decided"]:
            return [*says, "marking='when-it-pays': the first calls are still being measured."]
        if not found["decisions"]:
            return ["marking='when-it-pays': no pooling layer of this model marks anything in this mode."]
        if not found["marking"]:
            says.append(
                "marking does not pay on this model and data: every pooling layer pools as usual; calls "
                "without NaN at the input run untouched, and are not counted above."
            )
        return says
