"""What work costs on a machine: seconds per amount of `nansparse.workload`, by engine and number of axes.

Prices come with the package for CPUs; `nansparse calibrate` measures them and writes a file into the user's
cache folder, one for each device, torch version and number of threads. They are read once a process.
"""

import json
import math
import platform
import re
from dataclasses import dataclass
from importlib.resources import files
from operator import mul
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from nansparse.errors import InputError
from nansparse.workload import AMOUNTS, Workload

FORMAT = 1


def kind_of(rank: int, *, complete: bool = False) -> str:
    """Name the layers that share prices.

    Args:
        rank: Number of spatial axes.
        complete: Whether nothing is left out or filled, where engines are spared what they do otherwise.

    Returns:
        "2" or "3"; "2 complete" or "3 complete".
    """
    return f"{rank} complete" if complete else str(rank)


@dataclass(frozen=True)
class Prices:
    """Seconds per amount of work.

    Attributes:
        table: Engine to kind of layer (see `kind_of`) to seconds, one for each of `AMOUNTS`.
        source: Where they come from, for people.
    """

    table: dict[str, dict[str, tuple[float, ...]]]
    source: str

    def has(self, engine: str, rank: int) -> bool:
        """Say whether an engine has prices.

        Args:
            engine: Its name.
            rank: Number of spatial axes.

        Returns:
            True if it has.
        """
        return kind_of(rank) in self.table.get(engine, {})

    def of(self, engine: str, rank: int, *, complete: bool = False) -> tuple[float, ...]:
        """Find the prices of an engine.

        Args:
            engine: Name of an engine with prices.
            rank: Number of spatial axes.
            complete: Whether nothing is left out or filled; the prices of other layers, where such layers
                have none of their own.

        Returns:
            Seconds, one for each of `AMOUNTS`.
        """
        kinds = self.table[engine]
        return kinds.get(kind_of(rank, complete=complete)) or kinds[kind_of(rank)]

    def least(self, engine: str, rank: int, *, complete: bool = False) -> float:
        """Say what a call costs that has nothing to do.

        Args:
            engine: Name of an engine.
            rank: Number of spatial axes.
            complete: Whether nothing is left out or filled.

        Returns:
            Seconds; infinity for an engine without prices.
        """
        return self.of(engine, rank, complete=complete)[0] if self.has(engine, rank) else float("inf")

    def seconds(self, engine: str, rank: int, work: Workload, *, complete: bool = False) -> float:
        """Predict a convolution.

        Args:
            engine: Name of an engine with prices.
            rank: Number of spatial axes.
            work: How much it has to do.
            complete: Whether nothing is left out or filled.

        Returns:
            Seconds.
        """
        return sum(map(mul, self.of(engine, rank, complete=complete), work.amounts()))

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON-able data.

        Returns:
            The data that `read_prices` reads.
        """
        return {"format": FORMAT, "amounts": list(AMOUNTS), "source": self.source, "seconds": self.table}


def read_prices(text: str) -> Prices:
    """Read prices from JSON.

    Args:
        text: The file's content.

    Returns:
        The prices.

    Raises:
        InputError: If it is no prices file of this format.
    """
    try:
        data = json.loads(text)
        if data["format"] != FORMAT or data["amounts"] != list(AMOUNTS):
            raise InputError("prices of another version of nansparse: run `nansparse calibrate` again")
        table = {
            engine: {rank: tuple(float(p) for p in prices) for rank, prices in ranks.items()}
            for engine, ranks in data["seconds"].items()
        }
        every = [prices for ranks in table.values() for prices in ranks.values()]
        if any(len(prices) != len(AMOUNTS) for prices in every):
            raise InputError("prices are missing: run `nansparse calibrate` again")
        if not all(0 <= price < math.inf for prices in every for price in prices):
            raise InputError("prices must be numbers of at least 0: run `nansparse calibrate` again")
        return Prices(table, str(data["source"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("not a file of prices: run `nansparse calibrate` again") from error


def prices_path(device: torch.device) -> Path:
    """Name the file of this machine's own prices.

    Args:
        device: What convolutions run on.

    Returns:
        A path in the user's cache folder; one for each device, torch version and number of threads.
    """
    words = [device_name(device), "torch", torch.__version__]
    words += [f"{torch.get_num_threads()}threads"] if device.type == "cpu" else []
    return Path.home() / ".cache" / "nansparse" / (re.sub(r"[^\w.]+", "-", " ".join(words)) + ".json")


def device_name(device: torch.device) -> str:
    """Name the processor or GPU.

    Args:
        device: A device.

    Returns:
        Its model name.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    table = Path("/proc/cpuinfo")
    if device.type == "cpu" and table.is_file():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class _Known:
    """Prices read so far, by file."""

    def __init__(self) -> None:
        self._prices: dict[tuple[str, int], Prices] = {}
        self._lock = Lock()

    def __call__(self, device: torch.device) -> Prices:
        """Find the prices of a device: its own, else those that come with the package.

        Args:
            device: What convolutions run on.

        Returns:
            The prices; none at all for a device that was never measured.
        """
        key = (str(device), torch.get_num_threads())
        with self._lock:
            if key not in self._prices:
                self._prices[key] = _read(device)
            return self._prices[key]

    def forget(self) -> None:
        """Read files again when they are needed next."""
        with self._lock:
            self._prices.clear()


known_prices = _Known()


def _read(device: torch.device) -> Prices:
    try:
        return read_prices(prices_path(device).read_text())
    except (OSError, UnicodeDecodeError, InputError, RuntimeError):
        # No file, an old or torn one, or no home folder: the shipped prices do.
        pass
    shipped = files("nansparse") / "default_prices" / f"{device.type}.json"
    if shipped.is_file():
        return read_prices(shipped.read_text())
    return Prices({}, f"none for {device.type}: run `nansparse calibrate --device {device.type}`")
