"""Many volumes on one machine: worker processes, each with the networks loaded once and threads of its own.

A worker that dies (out of memory, a crash in a library) fails the one volume it had, and another takes its
place. Workers are started anew, not forked: torch's threads do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from nansparse.memory import keep_memory
from nansparse.prediction.networks import load_networks
from nansparse.prediction.outcomes import FAILED, SKIPPED, Outcome, attempt
from nansparse.prediction.recipe import Recipe
from nansparse.prediction.telling import told
from nansparse.prediction.volume import Job

_GLANCE = 0.2  # seconds between looks at whether the work is still wanted
_PATIENCE = 5.0  # seconds that a worker gets to leave by itself, and again once it is told to


def open_jobs(jobs: Sequence[Job], *, overwrite: bool) -> tuple[list[Outcome], list[Job]]:
    """Part the volumes that are done already from those to do.

    Args:
        jobs: All volumes.
        overwrite: Whether to do them all again.

    Returns:
        Outcomes of the finished ones, and the others.
    """
    done = [] if overwrite else [job for job in jobs if job.finished]
    return [Outcome(job, SKIPPED) for job in done], [job for job in jobs if job not in done]


def predict_many(recipe: Recipe, jobs: Sequence[Job], *, workers: int) -> Iterator[Outcome]:
    """Do volumes in worker processes.

    Programs that call this need the guard `if __name__ == "__main__":`, as everything does that starts
    processes.

    Args:
        recipe: What to do; each worker has its `threads`.
        jobs: The volumes.
        workers: How many processes; no more than volumes are started.

    Yields:
        The outcomes, as they come.
    """
    waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    finished: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    count = min(workers, len(jobs))
    for _ in range(count):
        waiting.put(None)
    stop = threading.Event()
    with ThreadPoolExecutor(max(count, 1), thread_name_prefix="nansparse-worker") as threads:
        try:
            for _ in range(count):
                threads.submit(_keep_busy, recipe, waiting, finished, stop)
            for _ in jobs:
                yield finished.get()
        finally:
            stop.set()  # whoever stops listening (an interrupt, say) stops the work too


def _keep_busy(
    recipe: Recipe,
    waiting: queue.SimpleQueue[Job | None],
    finished: queue.SimpleQueue[Outcome],
    stop: threading.Event,
) -> None:
    """Feed one worker process, and start another where it dies."""
    _hide_interrupts()
    worker: _Worker | None = None
    try:
        while (job := waiting.get()) is not None and not stop.is_set():
            try:
                worker = worker or _Worker(recipe)
                outcome = worker.do(job, stop)
                if outcome is None:
                    return
                finished.put(outcome)
            except (EOFError, OSError) as error:
                code = worker.stop() if worker is not None else None
                worker = None
                finished.put(Outcome(job, FAILED, _death(code, error)))
    finally:
        if worker is not None:
            worker.stop()


def _hide_interrupts() -> None:
    """Keep Ctrl-C, which reaches every process of the terminal, from what this thread starts.

    Processes take over the mask of the thread that starts them, from their first instruction on. Whoever
    wants the volumes hears Ctrl-C and ends the workers.
    """
    if hasattr(signal, "pthread_sigmask"):
        # multiprocessing starts this helper with the first process, and unmasks the signal in doing so.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _death(code: int | None, error: Exception) -> str:
    if code is None:
        return f"its worker process could not be reached: {told(error)}"
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"its worker process {how}; out of memory? (fewer workers need less)"


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, recipe: Recipe) -> None:
        """Start the process.

        Args:
            recipe: What it does.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process: Any = context.Process(target=_serve, args=(recipe, other), daemon=True)
        self._process.start()
        other.close()  # so that the end of the process is the end of the pipe

    def do(self, job: Job, stop: threading.Event) -> Outcome | None:
        """Do one volume.

        Args:
            job: The volume.
            stop: Set when nobody wants the outcome any more.

        Returns:
            What became of it; None if nobody wants to know.
        """
        self._pipe.send(job)
        while not self._pipe.poll(_GLANCE):
            if stop.is_set():
                self._process.terminate()
                return None
        outcome: Outcome = self._pipe.recv()
        return outcome

    def stop(self) -> int | None:
        """End the process.

        Returns:
            Its exit code.
        """
        self._pipe.close()
        for end in (self._process.terminate, self._process.kill):
            self._process.join(_PATIENCE)
            if self._process.is_alive():
                end()
        self._process.join()
        code: int | None = self._process.exitcode
        return code


def _serve(recipe: Recipe, pipe: Connection) -> None:
    """Do what comes through the pipe until it is closed: the body of a worker process."""
    # Leaving by an exception lets a half-written file go.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    keep_memory()
    try:
        networks = load_networks(recipe)
        while True:
            pipe.send(attempt(recipe, networks, pipe.recv()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the parent has no more work, is gone, or (where signals have no mask) was interrupted too
