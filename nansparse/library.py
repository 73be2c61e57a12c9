"""The optional library behind an engine: whether it is there, whether it can be loaded, and what installs it.

Nothing is imported before an engine is about to run, and a library that cannot be loaded is tried once.
"""

import importlib
import importlib.util
from functools import cached_property
from importlib.metadata import packages_distributions, version
from types import ModuleType

from nansparse.errors import EngineError


class Library:
    """An upstream library that an engine needs.

    Attributes:
        module: The module to import.
        install: The exact command that installs it on this machine.
    """

    def __init__(self, module: str, install: str) -> None:
        """Name the library.

        Args:
            module: The module to import.
            install: The exact command that installs it on this machine.
        """
        self.module, self.install = module, install

    @property
    def name(self) -> str:
        """The top-level module."""
        return self.module.partition(".")[0]

    @cached_property
    def is_installed(self) -> bool:
        """Whether the module is there; it is not imported to find out."""
        return importlib.util.find_spec(self.name) is not None

    @cached_property
    def versions(self) -> str:
        """The distribution that brings the module, and its version: "spconv-cu120 2.3.6"; empty if none."""
        brought_by = packages_distributions().get(self.name, [])
        return ", ".join(f"{name} {version(name)}" for name in sorted(set(brought_by)))

    @property
    def problem(self) -> str:
        """Why it cannot be used, with the remedy; empty if it can. The first look imports it."""
        if not self.is_installed:
            return f"{self.name} is not installed: {self.install}"
        if isinstance(self._attempt, ModuleType):
            return ""
        found = self.versions or self.name
        return f"{found} cannot be imported ({self._attempt}); install the build that fits: {self.install}"

    @cached_property
    def _attempt(self) -> ModuleType | str:
        """The module, or what went wrong (a missing CUDA library is an OSError or an ImportError)."""
        try:
            return self._import()
        except Exception as fault:
            return first_line(fault)

    def _import(self) -> ModuleType:
        """Import the module; a library that needs more than that to load overrides it."""
        return importlib.import_module(self.module)

    def load(self) -> ModuleType:
        """Import the library.

        Returns:
            The module.

        Raises:
            EngineError: If it is not installed or cannot be imported; the message names the remedy.
        """
        if not self.is_installed or isinstance(self._attempt, str):
            raise EngineError(self.problem)
        return self._attempt


def first_line(fault: BaseException) -> str:
    """Put an exception into one line.

    Args:
        fault: The exception.

    Returns:
        Its type and the first line of its message.
    """
    lines = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {lines[0].strip()}" if lines else type(fault).__name__
