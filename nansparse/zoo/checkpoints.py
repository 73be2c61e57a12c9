"""Loading weights into a network of the zoo, with an error that says what does not fit."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nansparse.errors import InputError

_SHOWN = 4
_PICKLES = (".pt", ".pth", ".pkl")
# Where training programs keep the network among other things: FastSurfer, Lightning, MONAI, nnU-Net.
_WRAPPERS = ("model_state", "state_dict", "model", "network_weights")


class CheckpointError(InputError):
    """A checkpoint that cannot be read, or does not fit the network."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load published or own weights into a network; every name and shape must fit.

    Three habits of old checkpoints are undone: the prefix `module.` of weights saved from a parallel wrapper,
    pointwise convolutions without their two axes of 1, and batch norms from before torch counted batches.

    Args:
        model: The network, changed in place, and only if everything fits.
        path: A checkpoint (`.pt`, `.pth`, `.pkl`: the bare state, or a dictionary with it under "model_state"
            or "state_dict") or a `.safetensors` file.
    """
    path = Path(path)
    state = _modernised(read_state(path), model.state_dict())
    check_fit(model, state, path.name)
    model.load_state_dict(state, strict=True)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint without running any code that the file may hold.

    Args:
        path: The file; its ending tells the format.

    Returns:
        Tensors by parameter name, on the CPU.

    Raises:
        CheckpointError: If the file is missing, of another format or damaged, or holds no network state.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in _PICKLES:
        raise CheckpointError(f"{path.name}: expected a file ending in {', '.join(_PICKLES)} or .safetensors")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what unpickling noise raises depends on the noise
        raise CheckpointError(
            f"{path.name} is not a readable PyTorch checkpoint: {_first_line(error)}"
        ) from error
    state = content if isinstance(content, Mapping) else None
    for key in _WRAPPERS:
        if state is not None and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        wrappers = ", ".join(map(repr, _WRAPPERS))
        raise CheckpointError(
            f"{path.name} holds no network state: expected a dictionary of tensors, or one under {wrappers}"
        )
    return dict(state)


def _modernised(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Write an old checkpoint as torch would write it today."""
    prefix = "module."
    if state and all(name.startswith(prefix) for name in state):
        state = {name[len(prefix) :]: value for name, value in state.items()}
    modern = {}
    for name, value in state.items():
        shape = expected[name].shape if name in expected else value.shape
        same_but_ones = value.dim() < len(shape) and shape == (
            *value.shape,
            *(1,) * (len(shape) - value.dim()),
        )
        modern[name] = value.view(shape) if same_but_ones else value
    for name, value in expected.items():
        running = name.replace("num_batches_tracked", "running_mean")
        if name not in modern and running != name and running in modern:
            modern[name] = value
    return modern


def check_fit(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Compare a state with the network it is meant for.

    Args:
        model: The network.
        state: Tensors by parameter name.
        name: What to call the checkpoint in the error.

    Raises:
        CheckpointError: If names are missing or unexpected, or shapes differ; it lists the first of each
            kind.
    """
    expected = model.state_dict()
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    reshaped = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = [
        f"{len(entries)} {kind} ({_first(entries)})"
        for kind, entries in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        )
        if entries
    ]
    if problems:
        raise CheckpointError(f"{name} does not fit {type(model).__name__}: {'; '.join(problems)}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: The file.

    Returns:
        Tensors by name.

    Raises:
        CheckpointError: If the package is missing or the file is damaged.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError("reading .safetensors files needs: pip install 'nansparse[demo]'") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path.name} is not a readable safetensors file: {_first_line(error)}"
        ) from error


def _first(entries: Iterable[str]) -> str:
    """Join the first entries.

    Args:
        entries: What to list.

    Returns:
        The first few, and how many more there are.
    """
    names = list(entries)
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _first_line(error: BaseException) -> str:
    """Shorten an error's text.

    Args:
        error: The error of another library.

    Returns:
        The first line of its text, or the error's name.
    """
    return (str(error).splitlines() or [type(error).__name__])[0]
