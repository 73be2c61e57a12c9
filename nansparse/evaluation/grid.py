"""Grids: which cells a benchmark runs. A grid is a list of blocks; each block is the product of its axes."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nansparse.errors import InputError
from nansparse.evaluation.axes import Axis, Value, read_axis

Block = Mapping[str, Sequence[Any]]
Cell = dict[str, Value]
# Product of everything: a mistake (a range typed into every axis) is told before it runs for a month.
MOST_CELLS = 100_000


@dataclass(frozen=True)
class Grid:
    """What a benchmark runs.

    Attributes:
        axes: The axes there are.
        blocks: Each the values of some axes; the others have their defaults.
        repeats: Samples of every way in every cell.
    """

    axes: dict[str, Axis]
    blocks: tuple[Block, ...]
    repeats: int

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            InputError: If there is no block, repeats are below 2, an axis is unknown or has no value, or a
                value does not fit.
        """
        if not isinstance(self.repeats, int) or isinstance(self.repeats, bool) or self.repeats < 2:
            raise InputError(
                f"repeats must be a whole number >= 2, or there are no quartiles; got {self.repeats!r}"
            )
        if not self.blocks:
            raise InputError("a grid needs at least one block")
        count = 0
        for block in self.blocks:
            size = 1
            for name, values in block.items():
                if not values:
                    raise InputError(f"axis {name!r} has no value")
                for value in values:
                    read_axis(self.axes, name, value)
                size *= len(values)
            count += size
        if count > MOST_CELLS:
            raise InputError(f"the grid has {count} cells, more than {MOST_CELLS}")

    def cells(self, threads: int) -> list[Cell]:
        """List the cells, each once.

        Args:
            threads: For cells that do not say.

        Returns:
            Axis name to value, in the order of the blocks.
        """
        found: dict[tuple[Value, ...], Cell] = {}
        for block in self.blocks:
            columns = [self._values(block, name, threads) for name in self.axes]
            for values in itertools.product(*columns):
                found.setdefault(values, dict(zip(self.axes, values, strict=True)))
        return list(found.values())

    def _values(self, block: Block, name: str, threads: int) -> list[Value]:
        default = threads if name == "threads" else self.axes[name].default
        return [read_axis(self.axes, name, value) for value in block.get(name, (default,))]

    def with_axes(self, changes: Mapping[str, Sequence[Any]], repeats: int | None = None) -> Grid:
        """Set axes in all blocks.

        Args:
            changes: Axis name to its values.
            repeats: Samples; those of this grid when None.

        Returns:
            The grid.
        """
        blocks = tuple({**block, **changes} for block in self.blocks)
        return Grid(self.axes, blocks, self.repeats if repeats is None else repeats)


def load_grid(path: Path, axes: dict[str, Axis], repeats: int) -> Grid:
    """Read a grid from a TOML file.

    ```
    repeats = 15

    [[grid]]
    size = ["256x256"]
    nan_ratio = [0.5, 0.9]
    ```

    Args:
        path: The file: tables `[[grid]]` of axes with lists of values, and `repeats` if wanted.
        axes: The axes there are.
        repeats: Samples, where the file does not say.

    Returns:
        The grid.

    Raises:
        InputError: If the file is missing, no TOML, or holds anything else.
    """
    try:
        content = _toml().loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the grid {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path.name} is no TOML file: {error}") from error
    unknown = sorted(set(content) - {"grid", "repeats"})
    if unknown:
        raise InputError(f"{path.name} holds {unknown[0]!r}; a grid has [[grid]] tables and 'repeats'")
    blocks = content.get("grid", [])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise InputError(f"{path.name}: 'grid' must be tables: write [[grid]] above each")
    lists = tuple(
        {name: values if isinstance(values, list) else [values] for name, values in block.items()}
        for block in blocks
    )
    return Grid(axes, lists, content.get("repeats", repeats))


def read_changes(texts: Sequence[str], axes: dict[str, Axis]) -> dict[str, list[Value]]:
    """Read `--set` arguments.

    Args:
        texts: Each "axis=value,value".
        axes: The axes there are.

    Returns:
        Axis name to its values.

    Raises:
        InputError: If one is no such text.
    """
    changes = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise InputError(f"expected axis=value,value, got {text!r}")
        changes[name.strip()] = [read_axis(axes, name.strip(), value.strip()) for value in values.split(",")]
    return changes


def _toml() -> Any:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    try:
        import tomli
    except ImportError as error:
        raise InputError("grids as TOML files need tomli: pip install 'nansparse[evaluation]'") from error
    return tomli
