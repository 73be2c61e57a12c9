"""Running a convolution on the engine that was chosen, or on the next one where that engine breaks.

An engine of an optional library can fail in ways that nobody foresees: a CUDA library is missing, a kernel
raises, a result holds NaN that the definitions do not give. Such an engine is reported once, with what to do
about it, and left out of the rest of the run. What it computed is thrown away; the input was never changed.
"""

import torch

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine, Registry
from nansparse.errors import UnexpectedNaNError
from nansparse.library import first_line
from nansparse.plan import plan_windows
from nansparse.planner import Choice, choose_engine

# It is plain torch and what the others fall back to: its faults are the caller's to see.
LAST_RESORT = "dense"


class EngineBrokenError(Exception):
    """An engine gave what it must not give."""


class LeftOut(Engine):
    """Stands for an engine that broke earlier in the run."""

    def __init__(self, name: str) -> None:
        """Take its name.

        Args:
            name: Name of the engine.
        """
        self.name = name

    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say that it broke.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            That one reason.
        """
        del activation, convolution
        return ["left out, it broke earlier in this run"]

    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute nothing.

        Args:
            activation: The input.
            convolution: What to compute.

        Raises:
            EngineBrokenError: Always.
        """
        raise EngineBrokenError(f"{self.name} broke earlier in this run")


class Unbroken(Registry):
    """The engines of a registry, those left out standing there with that as their reason."""

    def __init__(self, registry: Registry, faults: dict[str, str]) -> None:
        """Look at a registry.

        Args:
            registry: All engines.
            faults: What broke so far, by name of the engine.
        """
        super().__init__()
        self._all, self._broken = registry, faults

    def names(self) -> list[str]:
        """List the engines there are.

        Returns:
            Their names.
        """
        return self._all.names()

    def installed(self) -> list[str]:
        """List the engines that did not break and whose library is installed.

        Returns:
            Their names.
        """
        return [name for name in self._all.installed() if name not in self._broken]

    def get(self, name: str) -> Engine:
        """Find an engine.

        Args:
            name: Its name.

        Returns:
            The engine, or what stands for it where it broke.
        """
        return LeftOut(name) if name in self._broken else self._all.get(name)


def run_convolution(
    registry: Registry,
    wanted: str,
    activation: SparseActivation,
    convolution: Convolution,
    *,
    layer: str,
    faults: dict[str, str],
) -> tuple[SparseActivation, Engine, Choice]:
    """Run one convolution.

    Args:
        registry: All engines.
        wanted: "auto", or an engine's name.
        activation: The input.
        convolution: What to compute.
        layer: Name of the layer, for messages.
        faults: The engines that broke earlier in the run, by name; one that breaks now is added.

    Returns:
        The output, the engine that computed it, and what the planner made of it.

    Raises:
        EngineError: If no engine can run it.
        UnexpectedNaNError: If the layer itself makes NaN out of numbers.
    """
    while True:
        choice = find_choice(registry, wanted, activation, convolution, faults)
        engine = choice.engines[0]
        try:
            return _checked(engine, registry, activation, convolution, layer), engine, choice
        except UnexpectedNaNError:
            raise
        except Exception as fault:
            if engine.name == LAST_RESORT or isinstance(engine, LeftOut):
                raise
            told = (
                f"broke in layer {layer!r} and was left out of the rest of the run "
                f"({first_line(fault)}); {_remedy(engine)}"
            )
            faults.setdefault(engine.name, told)


def find_choice(
    registry: Registry,
    wanted: str,
    activation: SparseActivation,
    convolution: Convolution,
    faults: dict[str, str],
) -> Choice:
    """Choose the engine, or find the choice made for a layer of the same size that shares the plan.

    Args:
        registry: All engines.
        wanted: "auto", or an engine's name.
        activation: The input.
        convolution: What to compute.
        faults: The engines that broke earlier in the run, by name.

    Returns:
        The choice.
    """
    if convolution.groups > 1:
        return choose_engine(Unbroken(registry, faults), wanted, activation, convolution)
    choices = plan_windows(activation, convolution.windows, convolution.threshold).choices
    sizes = (activation.channels, convolution.out_channels, activation.laid_out, activation.dtype)
    key = (id(registry), wanted, torch.get_num_threads(), *faults, *sizes)
    choice = choices.get(key)
    if not isinstance(choice, Choice):
        choice = choose_engine(Unbroken(registry, faults), wanted, activation, convolution)
        choices[key] = choice
    return choice


def _checked(
    engine: Engine, registry: Registry, activation: SparseActivation, convolution: Convolution, layer: str
) -> SparseActivation:
    """Run an engine, and tell NaN that the layer makes from NaN that only this engine makes."""
    out = engine.run(activation, convolution)
    if out.partial or not _holds_nan(out):
        return out
    if engine.name != LAST_RESORT and LAST_RESORT in registry.names():
        dense = registry.get(LAST_RESORT).run(activation, convolution)
        if not _holds_nan(dense):
            raise EngineBrokenError("it gave NaN where the dense engine gives numbers")
    raise UnexpectedNaNError(
        f"layer {layer!r} made NaN from numbers (NaN or Inf weights, or overflow): "
        "run the model without nansparse to see where it starts"
    )


def _holds_nan(out: SparseActivation) -> bool:
    # The sum is cheap and settles nearly all cases; infinities that meet make it NaN too.
    return not out.sure and bool(out.values.sum().isnan()) and bool(out.rows.isnan().any())


def _remedy(engine: Engine) -> str:
    for library in engine.libraries:
        if library.is_installed:
            found = library.versions or library.name
            return f"update or reinstall {found} ({library.install}), or name another engine"
    return "name another engine"
