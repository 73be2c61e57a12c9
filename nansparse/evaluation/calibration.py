"""Measuring what convolutions cost on this machine, for the planner.

Each engine runs a few dozen convolutions of the sizes that occur in practice, with kept regions that are
compact, or scattered in blocks or as single sites. Its prices are the non-negative least-squares fit of the
amounts of work to the measured times, every measurement weighted by its own time, so that small layers count
as much as large ones.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine
from nansparse.evaluation.masks import nan_mask
from nansparse.evaluation.timing import time_interleaved
from nansparse.pool import RowPool
from nansparse.prices import Prices, device_name, kind_of
from nansparse.windows import convolution_windows
from nansparse.workload import AMOUNTS

# (input channels, output channels, sites along an axis) of the layers measured, by number of axes: those of
# one width, those that narrow what was joined, and first layers, which see an image.
LAYERS = {
    2: (
        *((c, c, s) for c, s in ((16, 128), (32, 128), (32, 256), (64, 16), (64, 64), (64, 128), (64, 256))),
        *((128, 128, 16), (128, 128, 64), (128, 64, 128), (1, 32, 256), (7, 64, 256)),
    ),
    3: (
        *((c, c, s) for c, s in ((16, 16), (16, 40), (32, 8), (32, 32), (32, 48), (64, 8), (64, 24))),
        *((128, 64, 24), (64, 32, 56), (1, 16, 40), (1, 32, 48)),
    ),
}
# A GPU takes the layers of a batch, or of a volume, to be busy: one large grid stands for a batch of slices.
LAYERS_ON_GPU = {
    2: (
        *((c, c, s) for c, s in ((32, 512), (64, 128), (64, 512), (64, 1024), (128, 256))),
        (7, 64, 512),
    ),
    3: (
        *((c, c, s) for c, s in ((16, 96), (32, 32), (32, 96), (64, 64), (128, 32))),
        (1, 32, 96),
    ),
}
# Shares of the sites that are kept: all, in one compact region, or in scattered blocks of so many sites an
# axis.
COMPACT = (1.0, 0.97, 0.6, 0.3, 0.1)
SCATTERED = ((0.6, 8), (0.2, 8), (0.7, 1))
# The same with NaN in single channels, as after unpooling: the share of the cells.
SINGLE = ((0.6, 0.02), (0.3, 0.02))
REPEATS = 5
# Layers that share a set of sites, and what is worked out for it once.
SHARING = 2
# What takes so many times as long as the fastest engine is never chosen: one sample of it is enough.
PATIENCE = 4.0
# Rounds of coordinate descent; with six columns it has converged long before.
ROUNDS = 2000


@dataclass(frozen=True)
class Measurement:
    """One convolution on one engine.

    Attributes:
        engine: Its name.
        rank: Number of spatial axes.
        amounts: Its work, one number for each of `AMOUNTS`.
        seconds: Median time.
        complete: Whether nothing was left out or filled.
    """

    engine: str
    rank: int
    amounts: tuple[float, ...]
    seconds: float
    complete: bool = False


def _layers(device: torch.device) -> dict[int, tuple[tuple[int, int, int], ...]]:
    return LAYERS if device.type == "cpu" else LAYERS_ON_GPU


def layer_count(device: torch.device) -> int:
    """Say how many convolutions `measure_layers` yields measurements of.

    Args:
        device: What to run on.

    Returns:
        Their number.
    """
    masks = len(COMPACT) + len(SCATTERED) + len(SINGLE)
    return masks * sum(len(layers) for layers in _layers(device).values())


def measure_layers(engines: Sequence[Engine], device: torch.device) -> Iterator[list[Measurement]]:
    """Time engines side by side, one convolution after the other.

    Args:
        engines: The engines.
        device: What to run on.

    Yields:
        The measurements of one convolution.
    """
    generator = torch.Generator().manual_seed(0)
    for rank, layers in _layers(device).items():
        for inputs, outputs, size in layers:
            grid = (size,) * rank
            x = torch.randn(1, inputs, *grid, generator=generator)
            weight = torch.randn(outputs, inputs, *(3,) * rank, generator=generator).to(device)
            convolution = Convolution(weight, None, convolution_windows(grid, 3, 1, 1), 1, 0.5)
            for kept in _masks(grid, inputs, generator):
                activation = SparseActivation.from_dense(x.masked_fill(~kept, torch.nan).to(device))
                yield _measure(engines, activation, convolution)


@torch.inference_mode()
def _measure(
    engines: Sequence[Engine], activation: SparseActivation, convolution: Convolution
) -> list[Measurement]:
    pool = RowPool()

    def run(engine: Engine) -> None:
        # Half of the work that is done once for a set of sites is part of the time, as where two layers share
        # it; and all that depends on the values.
        activation.sites.plans.clear()
        for _ in range(SHARING):
            with pool.serve():
                engine.run(activation.with_values(activation.values), convolution)

    able = [engine for engine in engines if not engine.unsupported_reasons(activation, convolution)]
    ways = {engine.name: (lambda engine=engine: run(engine)) for engine in able}
    times = time_interleaved(ways, repeats=REPEATS, warmup=1, patience=PATIENCE, device=activation.device)
    rank = len(convolution.windows.grid)
    return [
        Measurement(
            engine.name,
            rank,
            engine.workload(activation, convolution).amounts(),
            times[engine.name].median / SHARING,
            activation.sites.is_complete and not activation.partial,
        )
        for engine in able
    ]


def _masks(grid: tuple[int, ...], channels: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draw which cells are kept: bool tensors over the grid, or over channels and grid."""
    for share in COMPACT:
        yield ~nan_mask("blob", 1, grid, 1 - share, generator)[0, 0]
    for share, single in SINGLE:
        kept = ~nan_mask("blob", 1, grid, 1 - share, generator)[0, 0]
        yield kept & (torch.rand(channels, *grid, generator=generator) >= single)
    for share, block in SCATTERED:
        blocks = torch.rand([-(-size // block) for size in grid], generator=generator) < share
        blocks.flatten()[0] = True
        for axis, size in enumerate(grid):
            blocks = blocks.repeat_interleave(block, axis).narrow(axis, 0, size)
        yield blocks


def fit_prices(measurements: Sequence[Measurement], device: torch.device) -> Prices:
    """Fit prices to measurements.

    Args:
        measurements: At least one for each engine and number of axes that shall have prices.
        device: What they were made on.

    Returns:
        The prices.
    """
    table: dict[str, dict[str, tuple[float, ...]]] = {}
    alike: dict[tuple[str, str], list[Measurement]] = {}
    for m in measurements:
        alike.setdefault((m.engine, kind_of(m.rank, complete=m.complete)), []).append(m)
    for (engine, kind), chosen in alike.items():
        amounts = torch.tensor([m.amounts for m in chosen], dtype=torch.float64)
        seconds = torch.tensor([m.seconds for m in chosen], dtype=torch.float64)
        fitted = nonnegative_fit(amounts / seconds[:, None], torch.ones_like(seconds))
        table.setdefault(engine, {})[kind] = tuple(fitted.tolist())
    threads = f", {torch.get_num_threads()} thread(s)" if device.type == "cpu" else ""
    return Prices(table, f"{device_name(device)}{threads}, torch {torch.__version__}")


def nonnegative_fit(columns: Tensor, wanted: Tensor) -> Tensor:
    """Solve least squares with coefficients >= 0, by coordinate descent.

    Args:
        columns: (measurements, coefficients), float64.
        wanted: (measurements,).

    Returns:
        The coefficients.
    """
    scale = columns.norm(dim=0).clamp(min=torch.finfo(columns.dtype).tiny)
    unit = columns / scale
    gram, target = unit.T @ unit, unit.T @ wanted
    solution = torch.zeros_like(target)
    for _ in range(ROUNDS):
        for i in range(len(solution)):
            rest = target[i] - gram[i] @ solution + gram[i, i] * solution[i]
            solution[i] = (rest / gram[i, i].clamp(min=1e-300)).clamp(min=0)
    return solution / scale


def prediction_error(prices: Prices, measurements: Sequence[Measurement]) -> dict[str, float]:
    """Say how far predictions are from measurements.

    Args:
        prices: The prices.
        measurements: The measurements.

    Returns:
        Engine to the median of |predicted / measured - 1|.
    """
    errors: dict[str, list[float]] = {}
    for m in measurements:
        found = prices.of(m.engine, m.rank, complete=m.complete)
        predicted = math.fsum(p * a for p, a in zip(found, m.amounts, strict=True))
        errors.setdefault(m.engine, []).append(abs(predicted / m.seconds - 1))
    return {engine: sorted(values)[len(values) // 2] for engine, values in errors.items()}


def price_rows(prices: Prices) -> list[dict[str, str]]:
    """Write prices as rows of text.

    Args:
        prices: The prices.

    Returns:
        Column name to text, nanoseconds an amount.
    """
    return [
        {
            "engine": engine,
            "layers": f"{kind[0]}D{kind[1:]}",
            **{f"ns / {name}": f"{1e9 * p:.3g}" for name, p in zip(AMOUNTS, table, strict=True)},
        }
        for engine, kinds in prices.table.items()
        for kind, table in kinds.items()
    ]
