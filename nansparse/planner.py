"""Which engine runs a convolution.

Gathering touches kept windows only, and copies every row once a kernel position; the dense engine computes
all windows and copies each row about once. The prices below say what that costs relative to one multiply-add
of a dense convolution; `python -m benchmarks layers` prints the measurements they come from.
"""

from nansparse.activation import SparseActivation
from nansparse.engine import Convolution, Engine, Registry
from nansparse.errors import EngineError
from nansparse.plan import plan_windows

# Prices in multiply-adds of a dense convolution.
GATHERED_CELL = 9.0
LOOKED_UP_ROW = 250.0
COPIED_CELL = 30.0


def choose_engine(
    registry: Registry, wanted: str, activation: SparseActivation, convolution: Convolution
) -> tuple[Engine, str]:
    """Choose the engine of one convolution.

    Args:
        registry: The engines there are.
        wanted: "auto", or an engine's name.
        activation: The input.
        convolution: What to compute.

    Returns:
        The engine, and why it is not the wanted one (empty if it is).

    Raises:
        EngineError: If no engine can run it.
    """
    reasons: list[str] = []
    for engine in _candidates(registry, wanted, activation, convolution):
        problems = engine.unsupported_reasons(activation, convolution)
        if not problems:
            return engine, "; ".join(reasons)
        reasons += [f"{engine.name}: {problem}" for problem in problems]
    raise EngineError("no engine can run this convolution: " + "; ".join(reasons))


def _candidates(
    registry: Registry, wanted: str, activation: SparseActivation, convolution: Convolution
) -> list[Engine]:
    if wanted != "auto":
        names = [wanted, *(["dense"] if wanted != "dense" else [])]
    elif convolution.groups == 1 and gather_pays(activation, convolution):
        names = ["gather", "dense"]
    else:
        names = ["dense"]
    known = registry.names()
    return [registry.get(name) for name in names if name in known or name == wanted]


def gather_pays(activation: SparseActivation, convolution: Convolution) -> bool:
    """Predict whether gathering beats the dense engine.

    Args:
        activation: The input.
        convolution: A convolution with one group.

    Returns:
        True if it does.
    """
    plan = plan_windows(activation, convolution.windows, convolution.threshold)
    kept, total = len(plan.out), plan.keep.numel()
    reads, channels = convolution.windows.volume, activation.channels
    window = reads * channels * convolution.out_channels
    gather = kept * (window + GATHERED_CELL * reads * channels + LOOKED_UP_ROW * reads)
    copied = 0 if activation.sites.is_complete else activation.sites.total * channels
    dense = total * window + COPIED_CELL * (copied + kept * convolution.out_channels)
    return gather < dense
