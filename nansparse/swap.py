"""The class that a model has while it is enabled, and the way back.

It derives from the model's own class, so isinstance, state_dict and every attribute stay as they are.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from nansparse.errors import EnableError

if TYPE_CHECKING:
    from nansparse.session import Session


def enabled_class(original: type[nn.Module], session: Session) -> type[nn.Module]:
    """Derive the class that a model has while it is enabled.

    Args:
        original: The model's class.
        session: The block it is enabled for.

    Returns:
        The derived class.
    """

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        own = original.forward.__get__(self)
        if not session.active:
            # A copy that outlived the block.
            return own(*args, **kwargs)
        return session.run(self, own, args, kwargs)

    def refuse_pickle(self: nn.Module, protocol: Any = None) -> Any:
        if not session.active:
            put_back(self, original)
            return self.__reduce_ex__(protocol)
        raise EnableError(
            "a model cannot be pickled while it is enabled: leave the block, or save its state_dict()"
        )

    def deep_copy(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
        if not session.active:
            put_back(self, original)
            return copy.deepcopy(self, memo)
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def own_class(self: nn.Module) -> type[nn.Module]:
        # `super(self.__class__, self)` in the model's code must start from the model's class.
        del self
        return original

    def change_class(self: nn.Module, new: type[nn.Module]) -> None:
        # A parametrization of the model itself derives a class from the one it sees: it stays enabled.
        if original in new.__bases__ and "_nansparse_session" not in vars(new):
            new.__bases__ = tuple(type(self) if base is original else base for base in new.__bases__)
        set_class(self, new)

    body = {
        "__class__": property(own_class, change_class),
        "forward": forward,
        "__reduce_ex__": refuse_pickle,
        "__deepcopy__": deep_copy,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "_nansparse_session": session,
        "_nansparse_original": original,
    }
    return type(original.__name__, (original,), body)


def put_back(model: nn.Module, original: type[nn.Module]) -> None:
    """Give a model its own class back.

    Args:
        model: The model.
        original: Its class.
    """
    # A parametrization registered on the model itself derived another class from the one it had meanwhile.
    for derived in type(model).__mro__:
        bases = derived.__bases__
        if any("_nansparse_session" in vars(base) for base in bases):
            derived.__bases__ = tuple(
                original if "_nansparse_session" in vars(base) else base for base in bases
            )
            return
    set_class(model, original)


def set_class(model: nn.Module, new: type[nn.Module]) -> None:
    """Change what `type` says of a model, whatever its `__class__` says.

    Args:
        model: The model.
        new: The class.
    """
    vars(object)["__class__"].__set__(model, new)


def put_back_copies(model: nn.Module) -> None:
    """Give copies that were made inside a block and outlived it their own class back.

    Args:
        model: A model that is, or holds, such a copy.
    """
    for module in model.modules():
        session = getattr(type(module), "_nansparse_session", None)
        original = getattr(type(module), "_nansparse_original", None)
        if session is not None and original is not None and not session.active:
            put_back(module, original)
