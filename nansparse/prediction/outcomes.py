"""What became of each volume, and doing one so that nothing it does stops the others."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass, field
from typing import Any

from nansparse.errors import NansparseError
from nansparse.prediction.networks import Network
from nansparse.prediction.recipe import Recipe
from nansparse.prediction.telling import told
from nansparse.prediction.volume import Job, Ticker, predict_volume

DONE, SKIPPED, FAILED = "done", "skipped", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of one volume.

    Attributes:
        job: The volume.
        status: "done", "skipped" (its files were there already) or "failed".
        reason: Why it failed, in one line.
        trace: Where it failed, for faults that are no bad input.
        facts: What `predict_volume` gives.
    """

    job: Job
    status: str
    reason: str = ""
    trace: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON-able data.

        Returns:
            File names, status, reason and facts.
        """
        entry = asdict(self)
        files = {name: str(path) for name, path in entry.pop("job").items() if path is not None}
        return {**files, **entry}


def attempt(recipe: Recipe, networks: list[Network], job: Job, tick: Ticker | None = None) -> Outcome:
    """Do one volume, and turn every error into an outcome.

    Args:
        recipe: What to do.
        networks: Those of the recipe.
        job: The volume.
        tick: Called with the pieces done and their total.

    Returns:
        What became of it.
    """
    try:
        return Outcome(job, DONE, facts=predict_volume(recipe, networks, job, tick))
    except NansparseError as error:
        return Outcome(job, FAILED, str(error))
    except OSError as error:
        return Outcome(job, FAILED, f"{error.strerror or error}: {error.filename or job.labels}")
    except Exception as error:  # the user's network, or a library below it
        return Outcome(job, FAILED, told(error), traceback.format_exc())
