"""What a convolution engine must offer, and the one registry of engines.

Engines are found through the entry-point group `nansparse.engines` and loaded on first use; nansparse never
imports one by name. Registering a name twice is an error.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import entry_points
from threading import Lock

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.errors import EngineError, InputError
from nansparse.library import Library, first_line
from nansparse.plan import plan_windows
from nansparse.workload import Workload, padded

ENTRY_POINT_GROUP = "nansparse.engines"


class Engine(ABC):
    """Runs NaN-aware convolutions on sparse activations.

    Attributes:
        name: What a user writes in `enable(model, engine=...)`.
        libraries: The optional libraries it needs, one of which is enough; none for plain torch.
    """

    name: str
    libraries: Sequence[Library] = ()

    @property
    def is_installed(self) -> bool:
        """Whether a library it needs is there; nothing is imported to find out."""
        return not self.libraries or any(library.is_installed for library in self.libraries)

    @property
    def problem(self) -> str:
        """Why it can run nothing here, with the remedy; empty if it can."""
        problems = [library.problem for library in self.libraries]
        return problems[0] if problems and all(problems) else ""

    @property
    def devices(self) -> tuple[str, ...]:
        """The device types it runs on, "cpu" and "cuda" (which is also torch's word for AMD devices)."""
        return ("cpu", "cuda")

    @abstractmethod
    def unsupported_reasons(self, activation: SparseActivation, convolution: Convolution) -> list[str]:
        """Say why this engine cannot run a convolution.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            Reasons, each a sentence; empty if it can.
        """

    def least_workload(self, kept: int, activation: SparseActivation, convolution: Convolution) -> Workload:
        """Say what there is to do at least, without counting anything; an engine may know more.

        Args:
            kept: Windows that are not skipped.
            activation: The input.
            convolution: What to compute.

        Returns:
            The amounts: the products of these windows, which no engine is spared.
        """
        weights = convolution.windows.volume * activation.channels * convolution.out_channels
        return Workload(macs=kept * weights, reads=0, cells=0, writes=0, sites=0)

    def workload(self, activation: SparseActivation, convolution: Convolution) -> Workload:
        """Say what there is to do, for the planner; this one is right for what works window by window.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The amounts.
        """
        plan = plan_windows(activation, convolution.windows, convolution.threshold)
        kept, volume = len(plan.out), convolution.windows.volume
        reads = kept * volume
        # Windows that meet a row which is partly NaN are multiplied twice (`nansparse.fill`).
        products = reads + (plan.fills * volume if activation.partial else 0)
        return Workload(
            macs=products * padded(activation.channels, convolution.out_channels),
            reads=reads,
            cells=(reads + len(activation.sites)) * activation.channels,
            writes=kept * convolution.out_channels,
            sites=activation.sites.total,
        )

    @abstractmethod
    def run(self, activation: SparseActivation, convolution: Convolution) -> SparseActivation:
        """Compute what `nansparse.functional` defines.

        Args:
            activation: The input.
            convolution: What to compute.

        Returns:
            The output; its missing sites are the skipped windows, exactly.
        """


class Registry:
    """Engines by name."""

    def __init__(self) -> None:
        """Start empty; entry points are read on first use."""
        self._engines: dict[str, Engine] = {}
        self._faults: dict[str, str] = {}
        self._lock = Lock()
        self._loaded = False

    def register(self, engine: Engine) -> None:
        """Add an engine.

        Args:
            engine: The engine; its `name` must be new.

        Raises:
            InputError: If the name is taken.
        """
        self._load()
        self._add(engine)

    def _add(self, engine: Engine) -> None:
        if engine.name in self._engines:
            raise InputError(f"an engine named {engine.name!r} is registered already")
        self._engines[engine.name] = engine

    def _load(self) -> None:
        with self._lock:
            if self._loaded:
                return
            self._loaded = True
            for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name):
                try:
                    self._add(point.load()())
                except Exception as fault:  # a broken engine must not take the others down
                    self._faults[point.name] = first_line(fault)

    def names(self) -> list[str]:
        """List the engines there are, those whose library is not installed among them.

        Returns:
            Their names.
        """
        self._load()
        return list(self._engines)

    def installed(self) -> list[str]:
        """List the engines whose library is installed; nothing is imported to find out.

        Returns:
            Their names.
        """
        self._load()
        return [name for name, engine in self._engines.items() if engine.is_installed]

    def faults(self) -> dict[str, str]:
        """List the engines that are installed and could not be loaded.

        Returns:
            Name to what went wrong.
        """
        self._load()
        return dict(self._faults)

    def get(self, name: str) -> Engine:
        """Find an engine.

        Args:
            name: Its name.

        Returns:
            The engine.

        Raises:
            InputError: If there is none of that name; the message lists those there are.
            EngineError: If it is installed and could not be loaded; the message says why.
        """
        self._load()
        if name in self._faults:
            raise EngineError(f"engine {name!r} could not be loaded: {self._faults[name]}")
        if name not in self._engines:
            known = ", ".join(map(repr, self._engines)) or "none: reinstall nansparse"
            raise InputError(f"engine must be 'auto' or one of {known}, got {name!r}")
        return self._engines[name]

    def usable(self, name: str) -> Engine:
        """Find an engine that a user asked for.

        Args:
            name: Its name.

        Returns:
            The engine.

        Raises:
            InputError: If there is none of that name.
            EngineError: If it cannot run here; the message names the command that installs what is missing.
        """
        engine = self.get(name)
        if engine.problem:
            raise EngineError(f"engine {name!r} cannot run here: {engine.problem}")
        return engine


registry = Registry()
