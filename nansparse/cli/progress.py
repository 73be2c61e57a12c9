"""A progress bar that any loop can push on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nansparse.errors import InputError


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error while the block runs.

    Args:
        title: What is counted.
        quiet: Show nothing.

    Yields:
        A function to call with what is done and the total.

    Raises:
        InputError: If tqdm is missing; the message says how to install it.
    """
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise InputError(
            "the progress bar needs tqdm: pip install 'nansparse[predict]', or --quiet"
        ) from error
    with tqdm(desc=title, disable=quiet or None, leave=False) as bar:  # None: only on a terminal

        def tick(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tick
