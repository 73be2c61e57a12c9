"""One convolution: every engine against the best dense run, over the share of skipped windows."""

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.masks import site_mask
from benchmarks.measure import time_side_by_side
from nansparse import SparseActivation, registry
from nansparse.convolution import Convolution
from nansparse.windows import convolution_windows

# (channels in, channels out, grid), kernel 3 throughout.
GEOMETRIES = {
    "2D 64->64, 256x256": (64, 64, (256, 256)),
    "2D 64->64, 128x128": (64, 64, (128, 128)),
    "2D 71->71, 256x256": (71, 71, (256, 256)),
    "2D 32->32, 256x256": (32, 32, (256, 256)),
    "3D 32->32, 64^3": (32, 32, (64, 64, 64)),
}
RATIOS = (0.0, 0.3, 0.5, 0.67, 0.8, 0.9)


def measure_layer(name: str, shape: str, ratio: float, repeats: int) -> dict[str, Any]:
    """Time one convolution on one mask.

    The plan of the windows is made anew in every run, as it is when a layer changes the set of sites.

    Args:
        name: A key of `GEOMETRIES`.
        shape: A mask shape of `benchmarks.masks`.
        ratio: Share of NaN sites.
        repeats: Counted rounds.

    Returns:
        JSON-able measurement.
    """
    channels, out_channels, grid = GEOMETRIES[name]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, *grid, generator=generator)
    layout = torch.channels_last if len(grid) == 2 else torch.channels_last_3d
    weight = torch.randn(out_channels, channels, *(3 for _ in grid), generator=generator)
    dense = F.conv2d if len(grid) == 2 else F.conv3d
    last, last_weight = x.to(memory_format=layout), weight.to(memory_format=layout)
    nan = site_mask(shape, grid, ratio, generator)
    activation = SparseActivation.from_dense(x.masked_fill(nan, torch.nan))
    windows = convolution_windows(grid, 3, 1, 1)
    convolution = Convolution(weight, None, windows, 1, 0.5)

    def run(engine: str) -> SparseActivation:
        activation.sites.plans.clear()
        return registry.get(engine).run(activation, convolution)

    ways: dict[str, Any] = {"dense NCHW": lambda: dense(x, weight, padding=1)}
    ways["dense channels_last"] = lambda: dense(last, last_weight, padding=1)
    for engine in registry.names():
        if not registry.get(engine).unsupported_reasons(activation, convolution):
            ways[engine] = lambda engine=engine: run(engine)
    times = time_side_by_side(ways, repeats=repeats)
    best = min(times["dense NCHW"]["median"], times["dense channels_last"]["median"])
    kept = len(run("dense").sites) / nan.numel()
    return {
        "geometry": name,
        "mask": shape,
        "nan_sites": ratio,
        "windows_skipped": 1 - kept,
        "limit": 1 / kept if kept else None,
        "speed_up": {
            engine: best / times[engine]["median"] for engine in registry.names() if engine in times
        },
        "times": times,
    }


def rows(measurements: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Write measurements as rows of text.

    Args:
        measurements: What `measure_layer` gave.

    Returns:
        Column name to text.
    """
    table = []
    for m in measurements:
        row = {"convolution": m["geometry"], "mask": m["mask"], "NaN sites": f"{100 * m['nan_sites']:.0f} %"}
        row["windows skipped"] = f"{100 * m['windows_skipped']:.1f} %"
        row["limit"] = f"{m['limit']:.2f}x"
        row.update({engine: f"{value:.2f}x" for engine, value in m["speed_up"].items()})
        table.append(row)
    return table
