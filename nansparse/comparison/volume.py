"""One volume, run in every way side by side and compared with the dense run and with the truth."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nansparse.comparison.cases import Case
from nansparse.comparison.collecting import SEGMENTATION
from nansparse.comparison.measures import Measured, Reference, measure
from nansparse.comparison.memory import peak_memory
from nansparse.comparison.running import RunningWay, UnsupportedWayError, prepared_way
from nansparse.comparison.ways import WayPlan
from nansparse.errors import InputError, NothingToDoWarning
from nansparse.evaluation.conditions import fixed_conditions
from nansparse.evaluation.progress import told
from nansparse.evaluation.results import Cell, Row
from nansparse.evaluation.timing import Timing
from nansparse.imaging.conform import resample
from nansparse.imaging.volume import Volume
from nansparse.prediction.grids import Prepared, prepare
from nansparse.prediction.networks import Network, padded_shape
from nansparse.prediction.recipe import Recipe

MOST_TURNS = 32
# In one turn: the first call after another way's finds cold caches, which a way that runs alone does not.
PIECES_PER_TURN = 8
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Comparison:
    """What is done to every volume.

    Attributes:
        recipe: Networks, grid, windows, device.
        networks: Those of the recipe, loaded.
        plans: The ways; the first is the reference.
        task: "segmentation", "regression" or "classification".
        repeats: How often every way runs over the volume.
        subset: How many pieces of each volume to run, evenly spaced; all when None.
        surfaces: Whether distances between surfaces are measured (they need whole volumes).
    """

    recipe: Recipe
    networks: list[Network]
    plans: Sequence[WayPlan]
    task: str = SEGMENTATION
    repeats: int = 1
    subset: int | None = None
    surfaces: bool = True


def compare_case(comparison: Comparison, case: Case, cell: Cell, tick: Tick | None = None) -> list[Row]:
    """Run one volume in every way.

    Args:
        comparison: What to do.
        case: The volume.
        cell: What the rows are filed under.
        tick: Called with the turns done and their number.

    Returns:
        One row a way, the reference first; a way that fails is a row that says why.

    Raises:
        InputError: If the volume cannot be read, or the reference fails.
    """
    recipe = comparison.recipe
    native, truth = case.load()
    prepared = prepare(native, case.image or Path(), recipe.grid)
    volume = padded_volume(prepared, comparison)
    rows: dict[str, Row] = {}
    with fixed_conditions(recipe.threads), contextlib.ExitStack() as blocks, warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToDoWarning)  # nothing skipped is in the table for all to see
        ways = []
        for plan in comparison.plans:
            rows[plan.name] = Row(cell, plan.name, policy=_options(plan))
            try:
                way = blocks.enter_context(
                    prepared_way(
                        plan, comparison.networks, volume, recipe, comparison.task, comparison.subset
                    )
                )
                rows[plan.name].values = _warmed(way)
            except (
                Exception
            ) as error:  # whatever a model or a compiler raises: the other ways are worth running
                _give_up(rows[plan.name], plan, error)
            else:
                ways.append(way)
        _check_reference(rows, comparison)
        _take_turns(ways, rows, comparison.repeats, tick)
        _check_reference(rows, comparison)
        alive = [way for way in ways if rows[way.plan.name].done]
        _write_times(alive, rows, comparison.repeats)
        found = {way.plan.name: Measured(way.collector.result(), way.records) for way in alive}
        reference = Reference(
            found[comparison.plans[0].name].result,
            alive[0].collector.visited() if comparison.task != "classification" else None,
            None if truth is None else _seen_truth(truth, prepared, volume, comparison.task),
            prepared,
            alive[0].collector.classes,
            case.label_names,
            case.true_class,
        )
    for name, measured in found.items():
        measure(rows[name], measured, reference, comparison.task, surfaces=comparison.surfaces)
    return list(rows.values())


def padded_volume(prepared: Prepared, comparison: Comparison) -> Tensor:
    """Pad an image behind its last voxels, with background, so that every network can see it.

    Args:
        prepared: The image on the network's grid.
        comparison: Whose networks.

    Returns:
        float32 (X, Y, Z).
    """
    shape = padded_shape(prepared.data.shape, comparison.networks, comparison.recipe)
    volume = torch.full(shape, comparison.recipe.empty, dtype=torch.float32)
    volume[tuple(slice(size) for size in prepared.data.shape)] = torch.from_numpy(
        np.ascontiguousarray(prepared.data)
    )
    return volume


def _options(plan: WayPlan) -> dict[str, Any] | None:
    if plan.policy is None:
        return None
    parts = {
        name: value for name, value in asdict(plan).items() if name not in ("name", "policy", "compiled")
    }
    return {**plan.policy, **parts}


def _warmed(way: RunningWay) -> dict[str, float | None]:
    way.settle()
    peak = peak_memory(way.warm_up, way.device)
    way.clear()
    way.collector.clear()
    return {"peak_memory_mib": peak, "batch_size": float(len(way.pieces[0][1].places))}


def _give_up(row: Row, plan: WayPlan, error: Exception) -> None:
    # Without a compiler torch.compile cannot run: no fault of the volume or the model.
    row.status = "unsupported" if plan.compiled or isinstance(error, UnsupportedWayError) else "failed"
    row.fault = told(error)


def _check_reference(rows: dict[str, Row], comparison: Comparison) -> None:
    first = rows[comparison.plans[0].name]
    if not first.done:
        raise InputError(f"the dense run fails, so there is nothing to compare with: {first.fault}")


def _take_turns(ways: list[RunningWay], rows: dict[str, Row], repeats: int, tick: Tick | None) -> None:
    """Let every way run over the volume, a share in turn, so that a slow minute falls on all of them."""
    turns = min(MOST_TURNS, max(1, min(len(way.pieces) for way in ways) // PIECES_PER_TURN))
    for repeat in range(repeats):
        for way in ways:
            way.collector.clear()
        for turn in range(turns):
            for i in range(len(ways)):
                way = ways[(i + turn + repeat) % len(ways)]
                if rows[way.plan.name].done:
                    _turn(way, rows[way.plan.name], turn, turns)
            if tick is not None:
                tick(repeat * turns + turn + 1, repeats * turns)


def _turn(way: RunningWay, row: Row, turn: int, turns: int) -> None:
    count = len(way.pieces)
    try:
        way.take_turn(range(turn * count // turns, (turn + 1) * count // turns))
    except Exception as error:  # the other ways go on
        row.status, row.fault = "failed", told(error)


def _write_times(ways: list[RunningWay], rows: dict[str, Row], repeats: int) -> None:
    for way in ways:
        size = len(way.turns) // repeats
        totals = tuple(sum(way.turns[i * size : (i + 1) * size]) for i in range(repeats))
        rows[way.plan.name].timing = {**Timing(totals).to_dict(), "parts": way.turns}
    exact = [rows[way.plan.name].seconds or 0.0 for way in ways if way.plan.exact]
    for way in ways:
        rows[way.plan.name].values["speed_up"] = min(exact) / (rows[way.plan.name].seconds or 1.0)


def _seen_truth(truth: Volume, prepared: Prepared, volume: Tensor, task: str) -> Tensor:
    """Bring the truth to the padded grid of the network."""
    labels = task == SEGMENTATION
    data = truth.data if labels else truth.data.astype(np.float32)
    same = data.shape == prepared.data.shape and np.allclose(truth.affine, prepared.affine)
    if not same:
        data = resample(data, truth.affine, prepared.data.shape, prepared.affine, order=0 if labels else 1)
    if labels and data.dtype.kind not in "iub":
        if not np.array_equal(data, np.rint(data)):
            raise InputError("the truth must hold whole numbers, one a label")
        data = data.astype(np.int32)
    whole = torch.zeros(tuple(volume.shape), dtype=torch.int32 if labels else torch.float32)
    whole[tuple(slice(size) for size in data.shape)] = torch.from_numpy(
        np.ascontiguousarray(data).astype(np.int32 if labels else np.float32)
    )
    return whole
