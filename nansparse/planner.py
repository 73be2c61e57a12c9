"""Which engine runs a convolution: the one whose predicted time is least, the dense engine among them.

An engine says how much work a convolution is for it (`nansparse.workload`); the prices of that work were
measured, on this machine by `nansparse calibrate` or elsewhere for the prices that come with the package. A
prediction is their product. Layers in which nothing is left out or filled have prices of their own; there the
dense engine runs, unless another one is predicted to be faster by more than predictions err. An engine
without prices for the device is not chosen by "auto"; where there are no prices at all, as on a GPU that was
not measured, the one engine made for such devices is.
"""

from dataclasses import dataclass, field, replace

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine, Registry
from nansparse.errors import EngineError
from nansparse.plan import WindowPlan, plan_windows
from nansparse.prices import Prices, known_prices

# Does in one launch what the dense engine does in dozens, and waits for the device half as often; only prices
# can say where the dense one is faster all the same.
WITHOUT_PRICES = "triton"
# Where there is nothing to leave out, of the dense engine's predicted time: what another one must stay below.
# Half the predictions are within 15 % of what is measured (`nansparse calibrate`).
SURELY_LESS = 0.8


@dataclass(frozen=True)
class Choice:
    """The engines that can run a convolution.

    Attributes:
        engines: Best first; never empty. An engine that cannot be the fastest is not asked, and left out.
        note: Why an engine that was asked for is not the first; empty if it is.
        forecast: Predicted seconds by engine, for those that have prices; empty where the engine was given.
    """

    engines: tuple[Engine, ...]
    note: str = ""
    forecast: dict[str, float] = field(default_factory=dict)


def choose_engine(
    registry: Registry,
    wanted: str,
    activation: SparseActivation,
    convolution: Convolution,
    prices: Prices | None = None,
) -> Choice:
    """Choose the engine of one convolution.

    Args:
        registry: The engines there are.
        wanted: "auto", or an engine's name.
        activation: The input.
        convolution: What to compute.
        prices: What work costs; those of this machine when None.

    Returns:
        The engines, best first.

    Raises:
        EngineError: If no engine can run it.
    """
    if wanted == "auto":
        prices = known_prices(activation.device) if prices is None else prices
        complete = not _leaves_out(activation, convolution)
        choice = _ranked(registry, activation, convolution, prices, complete=complete)
        return _rather_dense(choice) if complete else choice
    names = [wanted, *(["dense"] if wanted != "dense" else [])]
    able, reasons = [], []
    for engine in (registry.get(name) for name in names if name == wanted or name in registry.names()):
        problems = engine.unsupported_reasons(activation, convolution)
        reasons += [f"{engine.name}: {problem}" for problem in problems]
        able += [] if problems else [engine]
    if not able:
        raise EngineError("no engine can run this convolution: " + "; ".join(reasons))
    return Choice(tuple(able), "; ".join(reasons))


def _leaves_out(activation: SparseActivation, convolution: Convolution) -> bool:
    """Say whether there is a window to leave out or a cell to fill."""
    if activation.partial or not activation.sites.is_complete:
        return True
    plan = activation.plans.get((convolution.windows, convolution.threshold))
    return isinstance(plan, WindowPlan) and not plan.out.is_complete


def _rather_dense(choice: Choice) -> Choice:
    """Put the dense engine first, unless another one is surely faster."""
    first, seconds = choice.engines[0], choice.forecast
    if {first.name, "dense"} <= set(seconds) and seconds[first.name] < SURELY_LESS * seconds["dense"]:
        return choice
    return replace(choice, engines=tuple(sorted(choice.engines, key=lambda engine: engine.name != "dense")))


def _ranked(
    registry: Registry,
    activation: SparseActivation,
    convolution: Convolution,
    prices: Prices,
    *,
    complete: bool,
) -> Choice:
    rank = len(convolution.windows.grid)
    priced = [registry.get(name) for name in registry.names() if _may_be_chosen(name, rank, prices)]
    least = _least_seconds(priced, activation, convolution, prices, complete=complete)
    able: list[Engine] = []
    forecast: dict[str, float] = {}
    for engine in sorted(priced, key=lambda e: least[e.name]):
        # Asking and counting take time too: not for an engine that loses by what any engine has to do.
        hopeful = least[engine.name] < min(forecast.values(), default=float("inf"))
        hopeful = hopeful or engine.name == "dense" or not prices.table
        if hopeful and not engine.unsupported_reasons(activation, convolution):
            able.append(engine)
            if prices.has(engine.name, rank):
                work = engine.workload(activation, convolution)
                forecast[engine.name] = prices.seconds(engine.name, rank, work, complete=complete)
    if not able:
        raise EngineError("no engine can run this convolution: the dense one is gone, install again")

    def order(engine: Engine) -> tuple[float, bool]:
        if not prices.table:
            return float(engine.name != WITHOUT_PRICES), False
        return forecast.get(engine.name, float("inf")), engine.name != "dense"

    return Choice(tuple(sorted(able, key=order)), "", dict(sorted(forecast.items(), key=lambda f: f[1])))


def _may_be_chosen(name: str, rank: int, prices: Prices) -> bool:
    return name == "dense" or prices.has(name, rank) or (name == WITHOUT_PRICES and not prices.table)


def _least_seconds(
    engines: list[Engine],
    activation: SparseActivation,
    convolution: Convolution,
    prices: Prices,
    *,
    complete: bool,
) -> dict[str, float]:
    """Predict what each engine cannot be spared."""
    rank = len(convolution.windows.grid)
    least = {engine.name: prices.least(engine.name, rank, complete=complete) for engine in engines}
    if convolution.groups > 1 or not prices.table:
        return least
    kept = len(plan_windows(activation, convolution.windows, convolution.threshold).out)
    for engine in engines:
        if prices.has(engine.name, rank):
            work = engine.least_workload(kept, activation, convolution)
            least[engine.name] = prices.seconds(engine.name, rank, work, complete=complete)
    return least
