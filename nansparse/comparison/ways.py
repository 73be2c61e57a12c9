"""The ways in which a comparison runs a model: dense baselines, policies, and their combinations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nansparse.background import USUAL_MARGIN
from nansparse.errors import InputError
from nansparse.evaluation.axes import MODEL_AXES, read_axis
from nansparse.policy import MARKINGS, MODES, Policy

_OPTIONS = ("threshold", "epsilon", "max_ties", "nan_probability", "engine", "marking")
_PARTS = ("nchw", "bbox", "bf16", "background[=MARGIN]")


@dataclass(frozen=True)
class WayPlan:
    """How to run the model.

    Attributes:
        name: What tables call it.
        policy: Options of `nansparse.enable`; None for a dense run.
        channels_last: Whether weights and inputs are laid out channels last.
        compiled: Whether `torch.compile` compiles the model first (dense runs only).
        cropped: Whether only the bounding box of what is not background is run.
        bfloat16: Whether it runs under bfloat16 autocast.
        margin: Background is marked as NaN but for this many voxels around the rest; None for no marking.
    """

    name: str
    policy: dict[str, Any] | None = None
    channels_last: bool = True
    compiled: bool = False
    cropped: bool = False
    bfloat16: bool = False
    margin: int | None = None

    @property
    def exact(self) -> bool:
        """Whether it computes what the dense run computes, to rounding, on the whole volume."""
        return self.policy is None and not self.cropped and not self.bfloat16


BASELINES = {
    "nchw": WayPlan("dense, NCHW", channels_last=False),
    "channels_last": WayPlan("dense, channels_last"),
    "compile": WayPlan("dense, compiled", compiled=True),
    "bbox": WayPlan("dense, bounding box", cropped=True),
    "bf16": WayPlan("dense, bfloat16", bfloat16=True),
}
# What every other run is compared with.
REFERENCE = "nchw"
# Gains should add up: the first policy is also run with each of these. (All policies run channels last.)
COMPOSITIONS = ("bbox", "bf16", f"background={USUAL_MARGIN}")
POLICIES = ("conservative", "conservative:threshold=1", "aggressive", "aggressive:threshold=1")


def read_baselines(text: str) -> list[WayPlan]:
    """Read the names of dense baselines.

    Args:
        text: Names with commas between; the reference comes first whether named or not.

    Returns:
        The baselines.

    Raises:
        InputError: If one is unknown.
    """
    names = dict.fromkeys([REFERENCE, *(name for name in text.split(",") if name)])
    for name in names:
        if name not in BASELINES:
            raise InputError(f"unknown baseline {name!r}; there are {', '.join(BASELINES)}")
    return [BASELINES[name] for name in names]


def read_policy(text: str) -> WayPlan:
    """Read a policy and what it is combined with.

    Args:
        text: `MODE[:OPTION=VALUE,...][+PART...]`, such as "aggressive:threshold=1,epsilon=1e-3+bbox+bf16".
            Parts: "nchw" (channels last otherwise), "bbox", "bf16", "background" or "background=MARGIN".

    Returns:
        The way.

    Raises:
        InputError: If it is no such text.
    """
    head, *parts = text.split("+")
    mode, _, tail = head.partition(":")
    if mode not in MODES:
        raise InputError(f"a policy starts with {' or '.join(MODES)}, got {text!r}")
    options: dict[str, Any] = {"mode": mode}
    for assignment in (word for word in tail.split(",") if word):
        name, equals, value = assignment.partition("=")
        if not equals or name not in _OPTIONS:
            raise InputError(f"a policy takes OPTION=VALUE with {', '.join(_OPTIONS)}, got {assignment!r}")
        read = _READ.get(name)
        options[name] = read_axis(MODEL_AXES, name, value) if read is None else read(value)
    return with_parts(WayPlan(policy_name(options), policy=options), parts)


def with_parts(plan: WayPlan, parts: list[str]) -> WayPlan:
    """Combine a policy with a layout, the bounding box, bfloat16 or a marked background.

    Args:
        plan: The policy.
        parts: Their names.

    Returns:
        The way.

    Raises:
        InputError: If one is unknown.
    """
    for part in parts:
        name, _, value = part.partition("=")
        if name == "background":
            margin = int(value) if value.isdecimal() else 0 if not value else -1
            if margin < 0:
                raise InputError(f"background=MARGIN takes a whole number of voxels, got {part!r}")
            plan = replace(plan, margin=margin, name=f"{plan.name}, background NaN, margin {margin}")
        elif part == "nchw":
            plan = replace(plan, channels_last=False, name=f"{plan.name}, NCHW")
        elif part == "bbox":
            plan = replace(plan, cropped=True, name=f"{plan.name}, bounding box")
        elif part == "bf16":
            plan = replace(plan, bfloat16=True, name=f"{plan.name}, bfloat16")
        else:
            raise InputError(f"a policy is combined with {', '.join(_PARTS)}, got {part!r}")
    return plan


def policy_name(options: dict[str, Any]) -> str:
    """Name a policy by its mode, its threshold, and what is not as usual.

    Args:
        options: Of `nansparse.enable`.

    Returns:
        A few words.
    """
    usual = Policy()
    words = [f"{options['mode']} {options.get('threshold', usual.threshold):g}"]
    for name in _OPTIONS[1:]:
        if name in options and options[name] != getattr(usual, name):
            words.append(f"{name} {options[name]}")
    return ", ".join(words)


def _probability(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise InputError(f"nan_probability must be a number in (0, 1], got {text!r}") from error
    return number


def _marking(text: str) -> str:
    if text not in MARKINGS:
        raise InputError(f"marking must be one of {', '.join(MARKINGS)}, got {text!r}")
    return text


# Options that the grids of a benchmark do not have.
_READ: dict[str, Callable[[str], Any]] = {"nan_probability": _probability, "marking": _marking}
