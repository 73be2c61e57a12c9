"""Max pooling on rows: by cells with plain torch, and by the segments of torch-scatter."""

from typing import Any

import torch

from nansparse import SparseActivation, registry
from nansparse.evaluation.masks import nan_mask
from nansparse.evaluation.results import Row
from nansparse.evaluation.timing import time_interleaved
from nansparse.functional import nan_max_pool
from nansparse.pooled_rows import cell_peaks, pool_rows

# (channels, grid, kernel, stride).
GEOMETRIES = {
    "2D 64, 256x256, 2x2": (64, (256, 256), 2, 2),
    "2D 64, 256x256, 3x3 stride 2": (64, (256, 256), 3, 2),
    "3D 32, 64^3, 2x2x2": (32, (64, 64, 64), 2, 2),
}
SHAPES = ("blob", "sites")
RATIOS = (0.0, 0.5, 0.9)
DEFINITION = "the definition, dense"


def measure_pooling(name: str, shape: str, ratio: float, repeats: int) -> list[Row]:
    """Time the pooling of one activation.

    The plan of the windows is made anew in every run.

    Args:
        name: A key of `GEOMETRIES`.
        shape: A mask shape of `nansparse.evaluation.masks`.
        ratio: Share of NaN sites.
        repeats: Counted rounds.

    Returns:
        A row a way; "speed_up" is over the definition, which computes dense.
    """
    channels, grid, kernel, stride = GEOMETRIES[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, *grid, generator=generator)
    x = x.masked_fill(nan_mask(shape, 1, grid, ratio, generator), torch.nan)
    activation = SparseActivation.from_dense(x)
    finders = {"cells (torch)": cell_peaks}
    if not registry.get("torch-scatter").problem:
        from nansparse.adapters.torch_scatter import segment_peaks

        finders["segments (torch-scatter)"] = segment_peaks

    def run(finder: Any) -> None:
        activation.sites.plans.clear()
        pool_rows(activation, kernel, stride, mode="conservative", find=finder)

    ways: dict[str, Any] = {way: lambda finder=finder: run(finder) for way, finder in finders.items()}
    ways[DEFINITION] = lambda: nan_max_pool(x, kernel, stride, mode="conservative")
    times = time_interleaved(ways, repeats=repeats)
    cell = {"pooling": name, "mask": shape, "nan_ratio": ratio}
    dense = times[DEFINITION].median
    return [
        Row(cell, way, timing=timing.to_dict(), values={"speed_up": dense / timing.median})
        for way, timing in times.items()
    ]
