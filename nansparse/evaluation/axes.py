"""The axes of a grid: their names, what their values may be, and what they are where nobody says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nansparse.errors import InputError
from nansparse.evaluation.conditions import find_device
from nansparse.evaluation.masks import MASKS
from nansparse.policy import MODES, Policy, check_threshold

Value = str | float | int
DTYPES = ("float32", "float64", "bfloat16", "float16")
NO_BACKGROUND = "none"
# Whether a convolution finds the plan of its windows, as layers that keep the set of sites do, or makes it.
PLANS = NEW, SHARED = "new", "shared"


@dataclass(frozen=True)
class Axis:
    """One axis of a grid.

    Attributes:
        read: Turns what a user wrote (text, or a value from a TOML file) into the value; raises ValueError.
        default: The value where a grid does not name the axis.
        expected: What the values may be, for messages.
    """

    read: Callable[[Any], Value]
    default: Value
    expected: str


def read_axis(axes: dict[str, Axis], name: str, value: Any) -> Value:
    """Read one value of one axis.

    Args:
        axes: The axes there are.
        name: Of the axis.
        value: What a user wrote.

    Returns:
        The value.

    Raises:
        InputError: If there is no such axis, or the value does not fit it.
    """
    if name not in axes:
        raise InputError(f"unknown axis {name!r}; this grid has {', '.join(axes)}")
    refusal = InputError(f"axis {name!r}: expected {axes[name].expected}, got {value!r}")
    if isinstance(value, bool):  # to Python, true is 1
        raise refusal
    try:
        return axes[name].read(value)
    except (ValueError, TypeError) as error:
        raise refusal from error


def read_sizes(text: str | int) -> tuple[int, ...]:
    """Read lengths along axes.

    Args:
        text: "256x256", "64x64x64", or one number.

    Returns:
        The lengths.

    Raises:
        ValueError: If one is no whole number of 1 or more.
    """
    lengths = tuple(int(part) for part in str(text).split("x"))
    if min(lengths) < 1:
        raise ValueError(text)
    return lengths


def read_channels(text: str | int) -> tuple[int, int]:
    """Read the channels of a convolution.

    Args:
        text: "64", or "32->64" for in and out.

    Returns:
        Channels in, channels out.

    Raises:
        ValueError: If they are no one or two whole numbers of 1 or more.
    """
    parts = [int(part) for part in str(text).split("->")]
    if min(parts) < 1 or len(parts) > 2:
        raise ValueError(text)
    return parts[0], parts[-1]


def _size(value: Any) -> str:
    if len(read_sizes(value)) not in (2, 3):
        raise ValueError(value)
    return str(value)


def _kernel(value: Any) -> str:
    read_sizes(value)
    return str(value)


def _channels(value: Any) -> str:
    read_channels(value)
    return str(value)


def _count(value: Any) -> int:
    number = int(value)
    if number < 1 or number != float(value):
        raise ValueError(value)
    return number


def _ratio(value: Any) -> float:
    number = float(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(value)
    return number


def _epsilon(value: Any) -> float:
    number = float(value)
    if not (number >= 0.0 and math.isfinite(number)):
        raise ValueError(value)
    return number


def _threshold(value: Any) -> float:
    return check_threshold(float(value))


def _device(value: Any) -> str:
    return str(find_device(str(value)))


def _background(value: Any) -> str:
    text = str(value)
    if text != NO_BACKGROUND:
        text = str(int(text))
        if int(text) < 0:
            raise ValueError(value)
    return text


def _one_of(names: tuple[str, ...]) -> Callable[[Any], Value]:
    def read(value: Any) -> Value:
        if value not in names:
            raise ValueError(value)
        return str(value)

    return read


_POLICY = Policy()
_THRESHOLD = Axis(_threshold, _POLICY.threshold, "a number in (0, 1]")
_THREADS = Axis(_count, 0, "a whole number >= 1")

LAYER_AXES = {
    "size": Axis(_size, "256x256", "two or three lengths such as 256x256 or 64x64x64"),
    "batch": Axis(_count, 1, "a whole number >= 1"),
    "channels": Axis(_channels, "64", "a number, or in->out such as 32->64"),
    "kernel": Axis(_kernel, "3", "a length, or one an axis such as 3x3x1"),
    "stride": Axis(_count, 1, "a whole number >= 1"),
    "mask": Axis(_one_of(tuple(MASKS)), "blob", "one of " + ", ".join(MASKS)),
    "nan_ratio": Axis(_ratio, 0.5, "a number in [0, 1]"),
    "threshold": _THRESHOLD,
    "dtype": Axis(_one_of(DTYPES), "float32", "one of " + ", ".join(DTYPES)),
    "threads": _THREADS,
    "plan": Axis(_one_of(PLANS), "new", "one of " + ", ".join(PLANS)),
    "device": Axis(_device, "cpu", "a device that is here: cpu, cuda, cuda:N"),
}

MODEL_AXES = {
    "mode": Axis(_one_of(MODES), _POLICY.mode, "one of " + ", ".join(MODES)),
    "threshold": _THRESHOLD,
    "epsilon": Axis(_epsilon, _POLICY.epsilon, "a number >= 0"),
    "max_ties": Axis(_count, _POLICY.max_ties, "a whole number >= 1"),
    "background": Axis(
        _background, NO_BACKGROUND, "'none', or the margin in voxels around what is not marked"
    ),
    "engine": Axis(str, _POLICY.engine, "'auto' or the name of an engine"),
    "threads": _THREADS,
}
