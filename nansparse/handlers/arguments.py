"""Reading the arguments of torch functions by name, however they were passed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

REQUIRED = object()


def bind(
    names: Sequence[tuple[str, Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """Match arguments with a signature.

    Args:
        names: (name, default) in the order of the positions; `REQUIRED` where there is no default.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Returns:
        Name to value; None if the call does not fit the signature (torch will say what is wrong with it).
    """
    known = [name for name, _ in names]
    if len(args) > len(names) or any(key not in known for key in kwargs):
        return None
    bound = dict(names)
    bound.update(zip(known, args, strict=False))
    bound.update(kwargs)
    return None if any(value is REQUIRED for value in bound.values()) else bound


def named_functions(name: str) -> list[Callable[..., Any]]:
    """Find the forms in which torch offers an operation.

    Args:
        name: Name such as "relu".

    Returns:
        `torch.relu`, `torch.Tensor.relu` and `torch.nn.functional.relu`, as far as they exist.
    """
    homes = (torch, Tensor, torch.nn.functional, torch._C._nn, torch.special)
    found = [getattr(home, name, None) for home in homes]
    return [func for func in found if callable(func)]
