"""Many volumes on a cluster, through Dask: one task a volume, the same job as on one machine.

Images and outputs are paths that every machine of the cluster sees. A worker should run one task at a time
(`dask worker --nthreads 1`), because a volume takes the threads of its recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nansparse.errors import InputError
from nansparse.prediction.networks import load_networks
from nansparse.prediction.outcomes import FAILED, Outcome, attempt
from nansparse.prediction.recipe import Recipe
from nansparse.prediction.telling import told
from nansparse.prediction.volume import Job

INSTALL = "clusters need dask.distributed: pip install 'nansparse[dask]'"


def connect(address: str) -> Any:
    """Connect to a Dask scheduler.

    Args:
        address: "tcp://host:8786", or the path of a scheduler file.

    Returns:
        A `dask.distributed.Client`.

    Raises:
        InputError: If Dask is missing or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(INSTALL) from error
    try:
        if Path(address).is_file():
            return Client(scheduler_file=address)
        return Client(address)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"no Dask scheduler at {address}: {told(error)}") from error


def predict_on_cluster(recipe: Recipe, jobs: Sequence[Job], client: Any) -> Iterator[Outcome]:
    """Do volumes on a cluster.

    Args:
        recipe: What to do.
        jobs: The volumes.
        client: A `dask.distributed.Client`; it stays open.

    Yields:
        The outcomes, as they come. A volume whose worker died is tried again elsewhere as often as the
        cluster's `allowed-failures` says, then it has failed.
    """
    from distributed import as_completed

    # Keys tell tasks apart by what they write; an outcome left from an earlier run must not answer for them.
    tasks = {client.submit(predict_task, recipe, job, pure=False): job for job in jobs}
    try:
        for task in as_completed(list(tasks)):
            error = task.exception()
            yield Outcome(tasks[task], FAILED, told(error)) if error is not None else task.result()
    finally:
        client.cancel(list(tasks))


def predict_task(recipe: Recipe, job: Job) -> Outcome:
    """Do one volume wherever this runs: load the networks, segment, write.

    Args:
        recipe: What to do.
        job: The volume.

    Returns:
        What became of it.
    """
    try:
        networks = load_networks(recipe)
    except InputError as error:
        return Outcome(job, FAILED, str(error))
    return attempt(recipe, networks, job)
