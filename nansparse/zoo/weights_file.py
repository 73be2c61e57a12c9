"""What every training of the zoo shares: checks of its arguments, threads, the weights file at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from nansparse.errors import InputError
from nansparse.imaging.atomic import whole_file


def checked_output(output: str | Path, **counts: int) -> Path:
    """Check the arguments of a training before minutes are spent.

    Args:
        output: Where the weights go.
        **counts: Numbers that must be 1 or more, by name.

    Returns:
        The path.

    Raises:
        InputError: If one makes no sense.
    """
    path = Path(output)
    if path.suffix != ".safetensors":
        raise InputError(f"output must end in .safetensors, got {path.name}")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist")
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    return path


def save_weights(model: nn.Module, output: Path) -> None:
    """Write the weights of a network; a file that cannot be finished is not left behind.

    Args:
        model: The network.
        output: A `.safetensors` file.
    """
    from safetensors.torch import save

    with whole_file(output) as unfinished:
        unfinished.write_bytes(save({name: value.contiguous() for name, value in model.state_dict().items()}))


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Use a number of CPU threads inside the block.

    Args:
        count: How many.

    Yields:
        Nothing; the number is what it was before once the block ends.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
