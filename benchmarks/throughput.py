"""How many volumes a machine segments in a minute: workers x threads of `nansparse predict`.

Every worker segments copies of one small volume, a slab of coronal slices of the MNI152 T1, with the shipped
tissue network and the background marked. The clock starts when as many volumes are done as there are workers,
so that starting the processes and loading the network, which a long run pays once, are not in it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from nansparse.background import USUAL_MARGIN
from nansparse.evaluation.results import Row
from nansparse.imaging import Volume, conform, load_template
from nansparse.imaging.nifti import save_labels
from nansparse.prediction import Grid, ModelSource, Recipe, View, plan_jobs, predict_many
from nansparse.prediction.outcomes import DONE
from nansparse.prediction.recipe import SLICED_ORIENTATION, Background

# Coronal slices of the conformed template, through the middle of the brain.
FIRST, SLICES = 120, 16
NOTE = (
    f"{SLICES} coronal slices of the MNI152 T1 a volume, the tissue network, background marked. Threads "
    "are those of each worker; a core is one thread of one worker."
)


def layouts(cores: int) -> list[tuple[int, int]]:
    """List ways to share out cores: powers of two of workers and threads.

    Args:
        cores: How many there are.

    Returns:
        Workers and threads, no more than cores together.
    """
    powers = [1 << i for i in range(cores.bit_length())]
    return [(workers, threads) for workers in powers for threads in powers if workers * threads <= cores]


def write_volume(path: Path) -> None:
    """Write the small volume.

    Args:
        path: A NIfTI file; (256, 256, SLICES) voxels of 1 mm, uint8, in LIA order.
    """
    whole = conform(load_template().t1)
    affine = whole.affine.copy()
    affine[:3, 3] += FIRST * affine[:3, 2]
    part = whole.data[:, :, FIRST : FIRST + SLICES]
    save_labels(part, Volume(part, affine), path)


def measure_throughput(workers: int, threads: int, volumes: int) -> Row:
    """Segment copies of the small volume.

    Args:
        workers: Processes.
        threads: CPU threads of each.
        volumes: Counted volumes a worker.

    Returns:
        A row with "volumes" (counted), "seconds", "volumes_per_minute" and "volumes_per_minute_and_core".

    Raises:
        RuntimeError: If a volume failed.
    """
    recipe = Recipe(
        (View(ModelSource("tissue"), "coronal"),),
        Grid("native", SLICED_ORIENTATION),
        background=Background(margin=USUAL_MARGIN),
        threads=threads,
    )
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "in"
        inputs.mkdir()
        write_volume(inputs / "0.nii.gz")
        # One round more than is counted: it starts the clock.
        for number in range(1, workers * (volumes + 1)):
            shutil.copy(inputs / "0.nii.gz", inputs / f"{number}.nii.gz")
        done, start = 0, 0.0
        for outcome in predict_many(recipe, plan_jobs([inputs], Path(folder) / "out"), workers=workers):
            if outcome.status != DONE:
                raise RuntimeError(outcome.reason)
            done += 1
            if done == workers:
                start = time.perf_counter()
        seconds, counted = time.perf_counter() - start, done - workers
    rate = 60 * counted / seconds
    values = {"volumes": float(counted), "seconds": seconds, "volumes_per_minute": rate}
    values["volumes_per_minute_and_core"] = rate / (workers * threads)
    cell = {"workers": workers, "threads": threads}
    return Row(cell, "background marked", policy={**recipe.policy, "margin": USUAL_MARGIN}, values=values)
