"""The job of one volume: read it, prepare it, run the networks, bring the labels back, write them."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nansparse.errors import InputError, NothingToDoWarning
from nansparse.evaluation.conditions import fixed_conditions
from nansparse.evaluation.metrics import dice, disagreeing
from nansparse.imaging.nifti import load_volume, save_labels
from nansparse.imaging.probabilities import save_probabilities
from nansparse.imaging.volume import Voxels
from nansparse.prediction.background import marked
from nansparse.prediction.footprint import peak_mib
from nansparse.prediction.grids import Prepared, prepare, restore
from nansparse.prediction.networks import Network, padded_shape
from nansparse.prediction.recipe import Recipe
from nansparse.prediction.scores import DirectLabels, SummedScores
from nansparse.record import RunRecord
from nansparse.session import Session

Ticker = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """One volume.

    Attributes:
        image: The image.
        labels: Where the labels go; the last file to appear, so a job whose labels are there is done.
        probabilities: Where the probabilities go, or None.
    """

    image: Path
    labels: Path
    probabilities: Path | None = None

    @property
    def finished(self) -> bool:
        """Whether everything it writes is there."""
        wanted = [self.labels, *([self.probabilities] if self.probabilities else [])]
        return all(path.is_file() for path in wanted)


@dataclass
class _Way:
    """One way to run the networks: sparse, or dense beside it."""

    networks: list[Network]
    volume: Tensor
    sink: DirectLabels | SummedScores
    one_by_one: bool = False
    seconds: float = 0.0
    records: list[RunRecord] = field(default_factory=list)


def predict_volume(
    recipe: Recipe, networks: list[Network], job: Job, tick: Ticker | None = None
) -> dict[str, Any]:
    """Segment one volume and write what was asked for.

    Args:
        recipe: What to do.
        networks: Those of the recipe, from `load_networks`; not enabled.
        job: The file names.
        tick: Called with the pieces done and their total.

    Returns:
        JSON-able facts: "seconds" (everything), "peak_memory_mib" (of the process so far), "network_seconds",
        "windows_skipped", "macs_skipped" (shares), "advice"; with `compare` also "dense_seconds", "speed_up",
        "dice" by label, and "disagreeing_voxels".
    """
    start = time.perf_counter()
    prepared = prepare(load_volume(job.image), job.image, recipe.grid)
    shape = padded_shape(prepared.data.shape, networks, recipe)
    volume = _padded(prepared.data, shape, recipe)
    with fixed_conditions(recipe.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToDoWarning)  # the advice is among the facts
        dense = [_dense_way(networks, volume, recipe, job)] if recipe.compare else []
        begun = time.perf_counter()
        sparse = _way(networks, marked(volume, prepared, job.image, recipe), recipe, job)
        sparse.seconds = time.perf_counter() - begun
        with _enabled(sparse, recipe):
            _run([sparse, *dense], shape, recipe, tick)
    facts = _facts(sparse)
    found = _numbered(_native(sparse.sink.labels(), prepared), recipe)
    for other in dense:
        facts.update(
            _compared(found, _numbered(_native(other.sink.labels(), prepared), recipe), sparse, other)
        )
    _write(found, sparse.sink, prepared, job)
    return {"seconds": time.perf_counter() - start, "peak_memory_mib": peak_mib(), **facts}


def _way(networks: list[Network], volume: Tensor, recipe: Recipe, job: Job) -> _Way:
    single = len(networks) == 1 and sum(1 for _ in _rivals(networks[0], volume, recipe)) < 2
    direct = single and job.probabilities is None
    kind = DirectLabels if direct else SummedScores
    return _Way(networks, volume, kind(tuple(volume.shape), recipe.activation))


def _dense_way(networks: list[Network], volume: Tensor, recipe: Recipe, job: Job) -> _Way:
    """Set up the dense run at its best: on a CPU, the layers of a single slice reuse memory."""
    way = _way([network.copied() for network in networks], volume, recipe, job)
    way.one_by_one = torch.device(recipe.device).type == "cpu"
    return way


def _rivals(network: Network, volume: Tensor, recipe: Recipe) -> Iterator[int]:
    """Count pieces that may overlap: slices never do."""
    if not network.thickness:
        yield from range(network.count(tuple(volume.shape), recipe))


@contextlib.contextmanager
def _enabled(way: _Way, recipe: Recipe) -> Iterator[None]:
    """Put nansparse around each network; a model that serves several views is enabled once."""
    with contextlib.ExitStack() as blocks:
        for model in {id(network.model): network.model for network in way.networks}.values():
            way.records.append(blocks.enter_context(Session(model, recipe.new_policy())))
        yield


def _run(ways: list[_Way], shape: tuple[int, ...], recipe: Recipe, tick: Ticker | None) -> None:
    """Run every piece in every way, in turn, so that a slow minute of the machine falls on all of them."""
    device = torch.device(recipe.device)
    total = sum(network.count(shape, recipe) for network in ways[0].networks)
    done = 0
    for at, network in enumerate(ways[0].networks):
        for piece in network.pieces(shape, recipe):
            for turn in range(len(ways)):
                way = ways[(turn + done) % len(ways)]
                start = time.perf_counter()
                x = piece.cut(way.volume)
                parts = x.split(1) if way.one_by_one else (x,)
                scores = [way.networks[at].scores(part, device) for part in parts]
                way.sink.add(piece, torch.cat(scores) if way.one_by_one else scores[0])
                way.seconds += time.perf_counter() - start
            done += 1
            if tick is not None:
                tick(done, total)


def _padded(data: Voxels, shape: tuple[int, ...], recipe: Recipe) -> Tensor:
    """Pad a volume behind its last voxels, with background."""
    volume = torch.full(shape, recipe.empty, dtype=torch.float32)
    volume[tuple(slice(size) for size in data.shape)] = torch.from_numpy(np.ascontiguousarray(data))
    return volume


def _native(labels: Tensor, prepared: Prepared) -> Voxels:
    x, y, z = prepared.data.shape
    return restore(labels[:x, :y, :z].numpy(), prepared)


def _numbered(labels: Voxels, recipe: Recipe) -> Voxels:
    """Turn classes into the numbers that are written."""
    values = recipe.label_values
    if values is None:
        return labels
    highest = int(labels.max()) if labels.size else 0
    if highest >= len(values):
        raise InputError(f"the network found class {highest}, and there are {len(values)} label values")
    return np.asarray(values, dtype=np.int32)[labels]


def _facts(way: _Way) -> dict[str, Any]:
    totals = {
        name: sum(getattr(record, name) for record in way.records)
        for name in ("windows", "windows_skipped", "macs", "macs_skipped", "densified")
    }
    advice = list(dict.fromkeys(sentence for record in way.records for sentence in record.advice()))
    return {
        "network_seconds": way.seconds,
        "windows_skipped": totals["windows_skipped"] / max(totals["windows"], 1),
        "macs_skipped": totals["macs_skipped"] / max(totals["macs"], 1),
        "densified": totals["densified"],
        "advice": advice,
    }


def _compared(found: Voxels, expected: Voxels, sparse: _Way, dense: _Way) -> dict[str, Any]:
    labels = [int(label) for label in np.union1d(np.unique(found), np.unique(expected)) if label > 0]
    overlaps = dice(found, expected, labels)
    return {
        "dense_seconds": dense.seconds,
        "speed_up": dense.seconds / sparse.seconds,
        "dice": {str(label): overlap for label, overlap in overlaps.items()},
        "disagreeing_voxels": disagreeing(found, expected),
    }


def _write(labels: Voxels, sink: DirectLabels | SummedScores, prepared: Prepared, job: Job) -> None:
    job.labels.parent.mkdir(parents=True, exist_ok=True)
    if job.probabilities is not None and isinstance(sink, SummedScores):
        job.probabilities.parent.mkdir(parents=True, exist_ok=True)
        x, y, z = prepared.data.shape
        classes = sink.probabilities()[:, :x, :y, :z].numpy()
        native = np.stack([restore(one, prepared, order=1) for one in classes], axis=-1)
        save_probabilities(native, prepared.native, job.probabilities)
    save_labels(labels, prepared.native, job.labels)
