"""What `nansparse.enable` costs on a model where nothing becomes NaN."""

import copy
from typing import Any

import torch

import nansparse
from benchmarks.measure import time_side_by_side
from nansparse.zoo.fastsurfer import FastSurferCNN


def measure_overhead(filters: int, repeats: int) -> dict[str, Any]:
    """Time a FastSurferCNN on noise, which has no ties, with and without nansparse.

    Args:
        filters: Channels of the network.
        repeats: Counted rounds.

    Returns:
        JSON-able measurement; "overhead" is the ratio of the medians less 1.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = FastSurferCNN(num_filters=filters, num_classes=4).eval()
    model = model.to(memory_format=torch.channels_last)
    enabled = copy.deepcopy(model)
    x = torch.rand(1, 7, 256, 256, generator=generator).to(memory_format=torch.channels_last)
    session = nansparse.enable(enabled)
    record = session.__enter__()
    times = time_side_by_side({"dense": lambda: model(x), "enabled": lambda: enabled(x)}, repeats=repeats)
    # The block is left by hand: its warning that nothing was marked is what is wanted here.
    session.__exit__(ValueError, ValueError(), None)
    return {
        "filters": filters,
        "marked": record.marked,
        "overhead": times["enabled"]["median"] / times["dense"]["median"] - 1,
        "times": times,
    }
