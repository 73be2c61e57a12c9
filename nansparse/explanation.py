"""`explain`: what nansparse catches in a model, what falls back to dense, and why, as text."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from nansparse.errors import BrokenEngineWarning, NothingToDoWarning
from nansparse.handlers.normalization import REAL_ONLY
from nansparse.policy import Policy
from nansparse.session import Session


def explain(model: nn.Module, *args: Any, policy: Policy | None = None, **kwargs: Any) -> str:
    """Say what nansparse catches in a model, what falls back to dense, and why, by running it once.

    Args:
        model: The model.
        *args: An input to run it on.
        policy: The options; the defaults when None.
        **kwargs: Keyword arguments of the model.

    Returns:
        A report.
    """
    session = Session(model, policy or Policy())
    with warnings.catch_warnings():
        # What the warnings say is part of the report.
        warnings.simplefilter("ignore", NothingToDoWarning)
        warnings.simplefilter("ignore", BrokenEngineWarning)
        with session as record:
            session.model(*args, **kwargs)
    untaught = [layer for layer in record.layers if layer.densified]
    lines = [record.summary(), ""]
    if untaught:
        lines.append(
            "These operations got dense tensors, NaN at the missing sites (see docs/interception.md):"
        )
        lines += [
            f"  {layer.operation} in {layer.layer or '(model)'}, {layer.densified}x" for layer in untaught
        ]
    else:
        lines.append("No operation needed a dense tensor while there was NaN.")
    unusual = [layer.layer for layer in record.layers if REAL_ONLY in layer.notes]
    if unusual:
        named = ", ".join([*unusual[:3], *(["..."] if unusual[3:] else [])])
        lines.append(
            f"{len(unusual)} normalization layer(s) ({named}) took statistics over the real values only. The "
            "network was trained with the background in them, so its output changes inside the foreground "
            "too; statistics_nan=<number> counts every NaN cell as that number."
        )
    return "\n".join(lines)
