"""What `nansparse.enable` costs on a model where nothing becomes NaN."""

import copy

import torch

import nansparse
from nansparse.evaluation.results import Row
from nansparse.evaluation.timing import time_interleaved
from nansparse.zoo.fastsurfer import FastSurferCNN

FILTERS = (32, 64)
NOTE = (
    "A FastSurferCNN of so many filters on noise. Overhead: median time of the enabled run over that of the "
    "dense one, less 1. Where marked is 1, windows tied by chance, and marking is in it."
)


def measure_overhead(filters: int, repeats: int) -> list[Row]:
    """Time a FastSurferCNN on noise, which has no ties, with and without nansparse.

    Args:
        filters: Channels of the network.
        repeats: Counted rounds.

    Returns:
        The dense row, and the enabled one with "overhead", the ratio of the medians less 1, and "marked", 1
        if windows tied by chance.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        # Other weights tie in other windows, or in none.
        torch.random.default_generator.manual_seed(0)
        model = FastSurferCNN(num_filters=filters, num_classes=4).eval()
    model = model.to(memory_format=torch.channels_last)
    enabled = copy.deepcopy(model)
    x = torch.rand(1, 7, 256, 256, generator=generator).to(memory_format=torch.channels_last)
    session = nansparse.enable(enabled)
    record = session.__enter__()
    times = time_interleaved({"dense": lambda: model(x), "enabled": lambda: enabled(x)}, repeats=repeats)
    # The block is left by hand: its warning that nothing was marked is what is wanted here.
    session.__exit__(ValueError, ValueError(), None)
    cell = {"filters": filters}
    lost = times["enabled"].median / times["dense"].median - 1
    return [
        Row(cell, "dense", timing=times["dense"].to_dict()),
        Row(
            cell,
            "enabled",
            policy=nansparse.Policy().to_dict(),
            timing=times["enabled"].to_dict(),
            values={"overhead": lost, "marked": float(record.marked)},
            layers=record.to_dict()["layers"],
        ),
    ]
