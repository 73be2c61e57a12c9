"""Which of its arguments an operation changes in place, and which operations let others do so later."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten

# After these, memory may be changed where nobody sees it.
HANDS_OUT = frozenset({"numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage", "storage"})


def operation_name(func: Any) -> str:
    """Name a torch function as users know it.

    Args:
        func: What a TorchFunctionMode is given.

    Returns:
        Its name; "Tensor.T" and the like for properties.
    """
    name = getattr(func, "__name__", repr(func))
    if name in ("__get__", "__set__"):
        return f"Tensor.{getattr(func.__self__, '__name__', '?')}"
    return name


def changes_first(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Say whether an operation changes its first argument in place.

    Args:
        func: The operation.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        True for methods such as `add_`, for `+=`, for item assignment, for `x.data = y` and where a flag
        `inplace` is set.
    """
    schema = getattr(func, "_schema", None)
    if schema is not None:
        return bool(schema.arguments) and _is_written(schema.arguments[0])
    name = operation_name(func)
    if name.startswith("__"):
        return name == "__setitem__" or (
            name.startswith("__i") and name not in ("__invert__", "__index__", "__int__", "__iter__")
        )
    if name == "Tensor.data":
        return func.__name__ == "__set__"
    if name.endswith("_") or kwargs.get("inplace"):
        return True
    code = getattr(func, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    return "inplace" in names and names.index("inplace") < len(args) and bool(args[names.index("inplace")])


def written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Find what an operation changes in place.

    Args:
        func: The operation.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        Those tensors among its arguments.
    """
    schema = getattr(func, "_schema", None)
    if schema is not None:
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
        targets = [given.get(argument.name) for argument in schema.arguments if _is_written(argument)]
    else:
        targets = [kwargs.get("out", args[0] if args and changes_first(func, args, kwargs) else None)]
    return [leaf for leaf in tree_flatten(targets)[0] if isinstance(leaf, Tensor)]


def may_change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Say whether an operation may change memory; what hands out its address lets others do so.

    Args:
        func: The operation.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        False only for operations that are known to read.
    """
    name, schema = getattr(func, "__name__", ""), getattr(func, "_schema", None)
    if "out" in kwargs or name == "__set__" or name in HANDS_OUT:
        return True
    if schema is not None:
        return bool(schema.is_mutable)
    # What has no name either (a traced layer) may do anything.
    return not name or changes_first(func, args, kwargs)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write
