"""Tensors inside of what models take and return: lists, dictionaries, dataclasses, other objects."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map


def held_by(value: Any) -> list[tuple[Any, Any, Any]]:
    """List what an object holds that torch's pytrees take for a leaf.

    Args:
        value: Anything.

    Returns:
        (container, key or attribute, held value) for each thing it holds.
    """
    if isinstance(value, dict):
        return [(value, key, held) for key, held in value.items()]
    if isinstance(value, list):
        return [(value, at, held) for at, held in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(value, field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    if callable(value) or not hasattr(value, "__dict__"):
        return []
    return [(value, name, held) for name, held in vars(value).items()]


def put(container: Any, key: Any, value: Any) -> None:
    """Change what a container holds; frozen dataclasses too.

    Args:
        container: As `held_by` gives it.
        key: As `held_by` gives it.
        value: What it holds from here on.
    """
    if isinstance(container, (dict, list)):
        container[key] = value
    else:
        object.__setattr__(container, key, value)


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Find every tensor, however deep.

    Args:
        values: Anything.

    Yields:
        The tensors.
    """
    seen: set[int] = set()

    def walk(nested: Any) -> Iterator[Tensor]:
        for leaf in tree_flatten(nested)[0]:
            if isinstance(leaf, Tensor):
                yield leaf
            elif id(leaf) not in seen:
                seen.add(id(leaf))
                for _, _, held in held_by(leaf):
                    yield from walk(held)

    yield from walk(values)


def with_changed(values: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change tensors, however deep, and leave the caller's own objects as they are.

    Args:
        values: Anything.
        change: Gives the tensor itself or another in its place.

    Returns:
        The values; an object in which something changed is replaced by a shallow copy.
    """
    copies: dict[int, Any] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        if id(value) in copies:
            return copies[id(value)]
        copies[id(value)] = made = value
        for _, key, held in held_by(value):
            new = tree_map(walk, held)
            if any(a is not b for a, b in zip(tree_flatten(new)[0], tree_flatten(held)[0], strict=True)):
                if made is value:
                    copies[id(value)] = made = copy.copy(value)
                put(made, key, new)
        return made

    return tree_map(walk, values)


def shallow_map(change: Callable[[Any], Any], values: Any) -> Any:
    """Change what the arguments of an operation hold, in lists, tuples and dictionaries.

    Args:
        change: Gives the value itself or another in its place.
        values: The arguments.

    Returns:
        The arguments; other containers are left alone.
    """
    if isinstance(values, dict):
        return {key: shallow_map(change, value) for key, value in values.items()}
    if type(values) in (list, tuple):
        return type(values)(shallow_map(change, value) for value in values)
    return change(values)


def same_index(one: Any, other: Any) -> bool:
    """Compare what two item accesses put between brackets.

    Args:
        one: An index.
        other: Another one.

    Returns:
        True if it is sure that they name the same items.
    """
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(same_index, one, other))
    known = (int, slice, type(Ellipsis))
    return isinstance(one, known) and type(one) is type(other) and one == other
