"""Where a model comes from: the zoo, a factory of the user's own, or a MONAI bundle; and its weights."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import nansparse.zoo
from nansparse.errors import InputError
from nansparse.prediction.bundles import is_bundle, load_bundle_model
from nansparse.prediction.telling import told
from nansparse.zoo.checkpoints import check_fit, read_state

TISSUE = "tissue"
# The first convolution, or subclass of one (weight standardization, say), says what a network sees.
_CONVOLUTIONS = {2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}


def zoo_names() -> list[str]:
    """List the names under which the zoo's networks can be asked for.

    Returns:
        "tissue" (the trained demonstration model) and the classes of `nansparse.zoo`.
    """
    classes = [name for name in nansparse.zoo.__all__ if _is_network(getattr(nansparse.zoo, name))]
    return [TISSUE, *classes]


@dataclass(frozen=True)
class ModelSource:
    """How to make a model; small and picklable, so that every worker makes its own.

    Attributes:
        name: A name of the zoo, `package.module:factory`, or the folder of a MONAI bundle.
        arguments: Keyword arguments of the factory or class.
        weights: `.safetensors`, `.pt`, `.pth` or `.pkl`; None for the factory's own, the shipped ones of
            "tissue", and a bundle's `models/model.pt`.
        search_path: A folder in which modules are looked for too; empty for none.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    search_path: str = ""

    def load(self) -> nn.Module:
        """Make the model and load its weights.

        Returns:
            The model, in eval mode, on the CPU, channels last, without gradients.

        Raises:
            InputError: If it cannot be imported or made, is no module, or the weights do not fit.
        """
        model = self._make()
        if not isinstance(model, nn.Module):
            raise InputError(f"{self.name} gave a {type(model).__name__}, expected a torch.nn.Module")
        if self.weights is not None and self.name != TISSUE:
            state = without_wrapper(read_state(self.weights))
            check_fit(model, state, self.weights.name)
            model.load_state_dict(state, strict=True)
        model = model.eval().requires_grad_(False)
        layout = torch.channels_last_3d if spatial_axes(model) == 3 else torch.channels_last
        for parameter in model.parameters():
            if parameter.dim() == (5 if layout is torch.channels_last_3d else 4):
                parameter.data = parameter.data.contiguous(memory_format=layout)
        return model

    def _make(self) -> Any:
        if ":" in self.name and not Path(self.name).is_dir():
            return _called(self.name, _imported(self.name, self.search_path), self.arguments)
        if is_bundle(Path(self.name)):
            return load_bundle_model(Path(self.name), self.arguments, own_weights=self.weights is None)
        if self.name == TISSUE:
            return _called(
                self.name, nansparse.zoo.load_tissue_model, {"weights": self.weights, **self.arguments}
            )
        if self.name in zoo_names():
            with torch.random.fork_rng(devices=[]):
                return _called(self.name, getattr(nansparse.zoo, self.name), self.arguments)
        raise InputError(
            f"no model {self.name!r}: expected package.module:factory, the folder of a MONAI bundle "
            f"(with configs/inference.json), or one of {', '.join(zoo_names())}"
        )


def without_wrapper(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Take off the prefix that a data-parallel wrapper leaves on every name.

    Args:
        state: Tensors by name.

    Returns:
        The same under the names of the network itself.
    """
    prefix = "module."
    if state and all(name.startswith(prefix) for name in state):
        return {name[len(prefix) :]: tensor for name, tensor in state.items()}
    return state


def spatial_axes(model: nn.Module) -> int | None:
    """Find out whether a network sees images or volumes.

    Args:
        model: The network.

    Returns:
        2 or 3, from its first convolution; None if it has none.
    """
    first = first_convolution(model)
    return next((axes for axes, kinds in _CONVOLUTIONS.items() if isinstance(first, kinds)), None)


def first_convolution(model: nn.Module) -> Any:
    """Find the convolution that a network was given first.

    Args:
        model: The network.

    Returns:
        The module, or None.
    """
    kinds = tuple(kind for kinds in _CONVOLUTIONS.values() for kind in kinds)
    return next((module for module in model.modules() if isinstance(module, kinds)), None)


def _imported(name: str, search_path: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    if search_path and search_path not in sys.path:
        # As `python -m` does; it stays, because a module may import its neighbours when it is called.
        sys.path.insert(0, search_path)
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may do anything while it is imported
        raise InputError(f"cannot import {module_name!r}: {told(error)}") from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise InputError(f"{module_name!r} has no {attribute!r}")
    if not callable(found):
        raise InputError(f"{name} is a {type(found).__name__}, expected a function or class to call")
    return found


def _called(name: str, factory: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        return factory(**arguments)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # the user's code
        raise InputError(f"{name} could not be made with {arguments}: {told(error)}") from error


def _is_network(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)
