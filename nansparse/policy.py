"""Every option of a run, validated once and then frozen."""

import math
from dataclasses import dataclass, fields
from typing import Literal

import torch

from nansparse.errors import InputError

MODES = ("conservative", "aggressive")
ALWAYS, WHEN_IT_PAYS, NEVER = MARKINGS = ("always", "when-it-pays", "never")


def check_threshold(threshold: float) -> float:
    """Check the share of NaN cells from which on a window is skipped.

    Args:
        threshold: A real number in (0, 1].

    Returns:
        The threshold as a float.

    Raises:
        InputError: If it is not a number in (0, 1].
    """
    number = _real("threshold", threshold)
    if not 0.0 < number <= 1.0:
        raise InputError(f"threshold must be in (0, 1] (1 skips only wholly-NaN windows), got {threshold!r}")
    return number


def check_tie_rule(mode: str, max_ties: int, epsilon: float, nan_probability: float) -> None:
    """Check the options that say which pooling windows are unstable and what becomes of them.

    Args:
        mode: "conservative" or "aggressive".
        max_ties: How many cells may tie in a stable window; 1 or more.
        epsilon: Relative tolerance of a tie; 0 or more, finite.
        nan_probability: Share of the unstable windows that become NaN, in (0, 1]; below 1 in aggressive mode
            only.

    Raises:
        InputError: If one of them is outside what is supported; the message names what is.
    """
    if mode not in MODES:
        raise InputError(f"mode must be one of {', '.join(map(repr, MODES))}, got {mode!r}")
    if isinstance(max_ties, bool) or not isinstance(max_ties, int) or max_ties < 1:
        raise InputError(f"max_ties must be an integer >= 1, got {max_ties!r}")
    if _real("epsilon", epsilon) < 0.0:
        raise InputError(f"epsilon must be >= 0, got {epsilon!r}")
    if not 0.0 < _real("nan_probability", nan_probability) <= 1.0:
        raise InputError(f"nan_probability must be in (0, 1], got {nan_probability!r}")
    if nan_probability < 1.0 and mode != "aggressive":
        raise InputError("nan_probability < 1 needs mode='aggressive': conservative pooling makes no NaN")


def check_generator(nan_probability: float, generator: torch.Generator | None) -> None:
    """Check that random marking has its own source of random numbers.

    Args:
        nan_probability: Share of the unstable windows that become NaN.
        generator: The source of random numbers.

    Raises:
        InputError: If the probability is below 1 and no generator is given.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")
    if nan_probability < 1.0 and generator is None:
        raise InputError(
            "nan_probability < 1 needs an explicit generator=torch.Generator(), "
            "so that your global random state stays untouched"
        )


@dataclass(frozen=True)
class Policy:
    """What is marked as NaN, what is skipped, and what the caller gets back.

    Attributes:
        mode: "conservative" (max unpooling puts NaN at tied cells) or "aggressive" (max pooling puts NaN at
            unstable windows). arXiv 2601.17180.
        threshold: A convolution window is skipped from this share of NaN cells on; in (0, 1].
        epsilon: Relative tolerance of a tie in a pooling window.
        max_ties: A pooling window is unstable when more cells than this tie.
        nan_probability: Share of the unstable windows that become NaN (aggressive mode).
        engine: "auto", or the name of one registered engine.
        output_nan: What NaN becomes when the model returns: a number, or "keep".
        generator: Source of random numbers; needed when nan_probability < 1.
        statistics_nan: What a NaN cell is to statistics over space (instance, group and layer normalization,
            averages over the grid): "ignore", or the number that it counts as.
        marking: "always" (the definitions); "when-it-pays": a pooling layer stops marking where the first
            calls show that the model gets no faster by it; "never": pooling marks nothing.

    Raises:
        InputError: On construction, if an option is outside what is supported.
    """

    mode: str = "conservative"
    threshold: float = 0.5
    epsilon: float = 1e-7
    max_ties: int = 1
    nan_probability: float = 1.0
    engine: str = "auto"
    output_nan: float | Literal["keep"] = 0.0
    generator: torch.Generator | None = None
    statistics_nan: float | Literal["ignore"] = "ignore"
    marking: str = ALWAYS

    def __post_init__(self) -> None:
        """Validate every option."""
        check_threshold(self.threshold)
        check_tie_rule(self.mode, self.max_ties, self.epsilon, self.nan_probability)
        check_generator(self.nan_probability, self.generator)
        if not isinstance(self.engine, str):
            raise InputError(f"engine must be 'auto' or the name of an engine, got {self.engine!r}")
        if self.output_nan != "keep":
            _real("output_nan (a number or 'keep')", self.output_nan)
        if self.statistics_nan != "ignore":
            _real("statistics_nan (a number or 'ignore')", self.statistics_nan)
        if self.marking not in MARKINGS:
            raise InputError(f"marking must be one of {', '.join(map(repr, MARKINGS))}, got {self.marking!r}")

    def to_dict(self) -> dict[str, str | float | int]:
        """Give the options as JSON-able data.

        Returns:
            Option name to value; the generator is left out.
        """
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "generator"}


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value!r}")
    return float(value)
