"""Timing a network on a head with its background marked, against the best dense runs and the bounding box.

The best dense run is the fastest of NCHW, channels last and, where a compiler is at hand, `torch.compile`,
measured side by side in one process. The bounding box, which any user can crop to, has its own best. Marking,
cropping and layout changes are part of the time. On a CPU a dense 2D network gets one slice a call, which is
its best: the layers of one slice reuse memory; so does a sparse run without a marked background, of which
much is dense.
On a GPU every way gets all slices in one call.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

import nansparse
from benchmarks.networks import CONSERVATIVE, MARKED, SLICES, STRIDE, UNMARKED, Case
from nansparse.errors import NothingToDoWarning
from nansparse.evaluation.metrics import dice
from nansparse.evaluation.results import Row
from nansparse.evaluation.timing import time_interleaved
from nansparse.record import RunRecord

# Gives what the network gives, a part a call: putting them together is nobody's work here.
Way = Callable[[], list[Tensor]]
NCHW, LAST, COMPILED = "dense, NCHW", "dense, channels_last", "dense, compiled"
BOX, COMPILED_BOX = "dense, bounding box", "dense, compiled, bounding box"
MARKED_BOX = "background marked, bounding box"
NOTE = (
    "The MNI152 T1: coronal slices at 1 mm, through the brain or the whole volume, 3D at 2. Speed-up: "
    "over the best dense run on the whole image, over box: over the best on the bounding box, without empty "
    "slices. Share of grid: of the bounding box, and of the brain. Dice inside says little where weights are "
    "random."
)
DENSE_WHOLE, DENSE_BOX = (NCHW, LAST, COMPILED), (BOX, COMPILED_BOX)


def bounding_box(x: Tensor) -> tuple[slice, ...]:
    """Find the box of what is not zero in any sample, widened to what the networks take.

    Args:
        x: (N, C, *spatial), sides multiples of 16.

    Returns:
        One slice an axis: from the first sample that holds anything to the last, all channels, and the box.
    """
    held = x != 0
    filled, samples = held.flatten(0, 1).any(0), held.flatten(1).any(1).nonzero().flatten()
    box = [slice(int(samples[0]), int(samples[-1]) + 1), slice(None)]
    for axis, side in enumerate(filled.shape):
        others = [other for other in range(filled.dim()) if other != axis]
        at = filled.any(others).nonzero().flatten()
        start, stop = int(at[0]), int(at[-1]) + 1
        size = -(-(stop - start) // STRIDE) * STRIDE
        start = max(0, min(start, side - size))
        box.append(slice(start, start + size))
    return tuple(box)


def measure_network(
    case: Case,
    repeats: int,
    *,
    compiled: bool = True,
    device: torch.device | None = None,
    slices: int = SLICES,
) -> list[Row]:
    """Time one network, all ways side by side.

    Args:
        case: The network and what it sees.
        repeats: Counted rounds.
        compiled: Whether to try `torch.compile`, which takes a minute or so a network.
        device: What to run on; the CPU when None.
        slices: How many a 2D network gets.

    Returns:
        A row a way: "speed_up" over the best dense run, for ways that the bounding box rivals "over_box" too,
        and for sparse ones what was skipped, and Dice with the dense run inside the brain, averaged over
        the labels that it gives there.
    """
    model, x = _seeded(case).to(device or "cpu"), case.image(slices).to(device or "cpu")
    cell = {"network": case.name, "weights": case.weights, "input": "x".join(map(str, x.shape))}
    box = bounding_box(x)
    of_labels = (box[0], *box[2:])
    with warnings.catch_warnings(), ExitStack() as blocks:
        warnings.simplefilter("ignore", NothingToDoWarning)  # the shares say it
        ways, records, missing = _ways(case, model, x, box, blocks, compiled=compiled)
        times = time_interleaved(ways, repeats=repeats, warmup=1, device=device)
        rows = {name: Row(cell, name, timing=timing.to_dict()) for name, timing in times.items()}
        dense, inside = _labels(ways[LAST]()), (x != 0).any(1)
        for name, record in records.items():
            record.clear()
            labels = torch.zeros_like(dense)
            labels[of_labels if name == MARKED_BOX else ...] = _labels(ways[name]())
            margin = case.margin if name in (MARKED, MARKED_BOX) else None
            rows[name].policy = {**record.policy.to_dict(), "margin": margin}
            rows[name].values = {
                "windows_skipped": record.windows_skipped / record.windows,
                "macs_skipped": record.macs_skipped / record.macs,
                "macs_repeated": record.macs_repeated / record.macs,
                "densified": float(record.densified),
                "dice_inside": dice_inside(labels[inside], dense[inside]),
            }
            rows[name].layers = record.to_dict()["layers"]
    rows[BOX].values["share_of_grid"] = inside[of_labels].numel() / inside.numel()
    rows[MARKED].values["share_of_grid"] = float(inside.double().mean())
    relate(rows)
    failed = [Row(cell, name, "unsupported", why) for name, why in missing.items()]
    return [*rows.values(), *failed]


def relate(rows: dict[str, Row]) -> None:
    """Write speed-ups into the rows of a network: over the best dense run, and over the best on the box.

    Args:
        rows: By way, with their times.
    """
    dense, box = (
        min(rows[name].seconds or 0.0 for name in names if name in rows) for names in (DENSE_WHOLE, DENSE_BOX)
    )
    for name, row in rows.items():
        row.values["speed_up"] = dense / (row.seconds or 1.0)
        if name in (MARKED, MARKED_BOX):
            row.values["over_box"] = box / (row.seconds or 1.0)


def goals(rows: list[Row], cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Put what was aimed at beside what was reached.

    Args:
        rows: Of `measure_network`.
        cases: The networks that were measured, with their goals.

    Returns:
        One entry a goal: "network", "run", "measure", "goal" and "reached".
    """
    found = {(row.cell["network"], row.way): row for row in rows}
    return [
        {
            "network": case.name,
            "run": way,
            "measure": measure,
            "goal": goal,
            "reached": found[case.name, way].values[measure],
        }
        for case in cases
        for (way, measure), goal in case.goals.items()
        if (case.name, way) in found
    ]


def _seeded(case: Case) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        return case.build().eval()


def _ways(
    case: Case, model: nn.Module, x: Tensor, box: tuple[slice, ...], blocks: ExitStack, *, compiled: bool
) -> tuple[dict[str, Way], dict[str, RunRecord], dict[str, str]]:
    """Set all ways up; also what nansparse records, and why a way is missing."""
    flat = x.dim() == 4
    one_by_one = flat and not x.is_cuda
    layout: Any = torch.channels_last if flat else torch.channels_last_3d
    last = copy.deepcopy(model).to(memory_format=layout)  # type: ignore[call-overload]

    def dense(net: Callable[[Tensor], Tensor], part: Tensor, form: Any = layout) -> list[Tensor]:
        parts = part.split(1) if one_by_one else (part,)
        return [net(one.contiguous(memory_format=form)) for one in parts]

    ways: dict[str, Way] = {
        NCHW: lambda: dense(model, x, torch.contiguous_format),
        LAST: lambda: dense(last, x),
        BOX: lambda: dense(last, x[box]),
    }
    missing: dict[str, str] = {}
    for name, part in ((COMPILED, x), (COMPILED_BOX, x[box])) if compiled else ():
        net: Any = torch.compile(copy.deepcopy(last), dynamic=False)
        try:
            dense(net, part)
        except Exception as error:  # no compiler, or a network that it cannot compile
            missing[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:200]
        else:
            ways[name] = _bound(dense, net, part)
    records = {}

    def sparse(name: str, part: Tensor, *, marked: bool) -> None:
        net, engine = copy.deepcopy(last), "triton" if x.is_cuda else "auto"
        marking = "never" if name == UNMARKED else "always"
        records[name] = blocks.enter_context(nansparse.enable(net, engine=engine, marking=marking))

        def run() -> list[Tensor]:
            seen = nansparse.mask_background(part, margin=case.margin) if marked else part
            # Marked slices are small, and share the costs of a call.
            size = 1 if one_by_one and not marked else len(seen)
            return [net(one.contiguous(memory_format=layout)) for one in seen.split(size)]

        ways[name] = run

    sparse(MARKED, x, marked=True)
    sparse(MARKED_BOX, x[box], marked=True)
    if not x.is_cuda:  # on a GPU there is nothing to save without NaN
        sparse(UNMARKED, x, marked=False)
    if case.unpools:
        sparse(CONSERVATIVE, x, marked=False)
    return ways, records, missing


def _labels(parts: list[Tensor]) -> Tensor:
    return torch.cat([part.argmax(1) for part in parts])


def _bound(run: Callable[[Any, Tensor], list[Tensor]], net: Any, part: Tensor) -> Way:
    return lambda: run(net, part)


def dice_inside(found: Tensor, dense: Tensor) -> float:
    """Average Dice over the labels that the dense run gives inside the brain.

    Args:
        found: Labels inside the brain.
        dense: Those of the dense run, as `found`.

    Returns:
        The average, in [0, 1].
    """
    overlaps = dice(found, dense, dense.unique().tolist())
    return sum(overlaps.values()) / len(overlaps)
