"""What a run needs at its peak, dense and sparse, and whether hundreds of forwards leave anything behind.

Each measurement has a process of its own: the allocator keeps what an earlier one needed.
"""

from __future__ import annotations

import gc
import multiprocessing
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor, nn

import nansparse
from benchmarks.networks import CLASSES, head
from benchmarks.tables import template_slices
from nansparse import NothingToDoWarning
from nansparse.comparison.memory import peak_memory, resident_memory
from nansparse.evaluation.conditions import fixed_conditions
from nansparse.evaluation.masks import nan_mask
from nansparse.evaluation.results import Row
from nansparse.zoo import UNet, load_tissue_model

DEMONSTRATION, VOLUMETRIC = "demonstration network, 256x256", "3D U-Net, 32 to 256, 96x96x96"
NETWORKS = (DEMONSTRATION, VOLUMETRIC)
RATIOS = (0.0, 0.5, 0.9)
DENSE, SPARSE = "dense, channels_last", "conservative 0.5"
FORWARDS, SETTLED = 200, 20
# Cells a side of what is run before peaks are measured.
SMALL = 32
NOTE = (
    "First call: growth of the resident memory over a call with a few cells, in a process of its own: "
    "libraries are loaded then (for a sparse run numba's too), and weights are laid out. Peak: growth over "
    "what was held after it, in three forwards; of dense: sparse peak over dense peak. NaN: a compact mask "
    "around the middle. Growth: "
    f"resident memory and living tensors after {FORWARDS} forwards over those after {SETTLED}, on the middle "
    "half of each side."
)


def measure_peaks(network: str, ratio: float, threads: int) -> list[Row]:
    """Measure the peaks of a dense and a sparse run.

    Args:
        network: One of `NETWORKS`.
        ratio: Share of the input's sites that is NaN (0 to the dense run).
        threads: CPU threads.

    Returns:
        The dense row and the sparse one.
    """
    cell = {"network": network, "nan_ratio": ratio}
    dense, sparse = (_alone(_peak, network, ratio, way, threads) for way in (DENSE, SPARSE))
    if dense["peak_memory_mib"] and sparse["peak_memory_mib"] is not None:
        sparse["of_dense"] = sparse["peak_memory_mib"] / dense["peak_memory_mib"]
    policy = nansparse.Policy().to_dict()
    return [Row(cell, DENSE, values=dense), Row(cell, SPARSE, policy=policy, values=sparse)]


def measure_growth(network: str, ratio: float, threads: int) -> Row:
    """Measure what hundreds of forwards leave behind.

    Args:
        network: One of `NETWORKS`.
        ratio: Share of the input's sites that is NaN.
        threads: CPU threads.

    Returns:
        A row with "growth_mib" of the resident memory, and "tensor_growth_mib" of living tensors.
    """
    resident, tensors = _alone(_growth, network, ratio, SPARSE, threads)
    values = {"growth_mib": resident, "tensor_growth_mib": tensors}
    cell = {"network": network, "nan_ratio": ratio}
    return Row(cell, f"{FORWARDS} forwards", policy=nansparse.Policy().to_dict(), values=values)


def living_bytes() -> int:
    """Count the bytes of all tensors that Python can reach, each storage once.

    Returns:
        Bytes.
    """
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        # By type: isinstance would ask lazily loaded modules for their class.
        if issubclass(type(thing), Tensor) and thing.layout == torch.strided and not thing.is_meta:
            storage = thing.untyped_storage()
            # What only stands for other tensors has no memory; those are counted by themselves.
            with suppress(RuntimeError):
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _alone(measure: Any, *arguments: Any) -> Any:
    """Run a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(measure, *arguments).result()


def _peak(network: str, ratio: float, way: str, threads: int) -> dict[str, float | None]:
    with fixed_conditions(threads):
        model, x = _network(network), _input(network, ratio, way)
        small = torch.zeros_like(x[(..., *[slice(SMALL)] * (x.dim() - 2))])
        if way == SPARSE:
            small[..., : SMALL // 2] = torch.nan
        with _enabled(model, way):
            before = resident_memory()
            model(small)
            after = resident_memory()
            first = None if before is None or after is None else after - before
            peak = peak_memory(lambda: [model(x) for _ in range(3)][-1], torch.device("cpu"))
    return {"first_call_mib": first, "peak_memory_mib": peak}


def _growth(network: str, ratio: float, way: str, threads: int) -> tuple[float | None, float]:
    with fixed_conditions(threads):
        model, x = _network(network), _input(network, ratio, way)
        x = x[(..., *(slice(size // 4, 3 * size // 4) for size in x.shape[2:]))]
        found = []
        with _enabled(model, way):
            for number in range(FORWARDS):
                model(x)
                if number + 1 in (SETTLED, FORWARDS):
                    found.append((resident_memory(), living_bytes() / (1 << 20)))
    (resident, tensors), (at_end, tensors_at_end) = found
    grown = None if resident is None or at_end is None else at_end - resident
    return grown, tensors_at_end - tensors


@contextmanager
def _enabled(model: nn.Module, way: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", NothingToDoWarning
        )  # without NaN there is nothing; that is measured too
        with nansparse.enable(model) if way == SPARSE else nullcontext():
            yield


def _network(name: str) -> nn.Module:
    if name == DEMONSTRATION:
        return load_tissue_model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        model = UNet(num_classes=CLASSES).eval()
    return model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _input(name: str, ratio: float, way: str) -> Tensor:
    x = template_slices(3)[1] if name == DEMONSTRATION else head(96)
    layout = torch.channels_last if name == DEMONSTRATION else torch.channels_last_3d
    mask = nan_mask("blob", 1, tuple(x.shape[2:]), ratio, torch.Generator().manual_seed(0))
    return x.masked_fill(mask, torch.nan if way == SPARSE else 0.0).contiguous(memory_format=layout)
