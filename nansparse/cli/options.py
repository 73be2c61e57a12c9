"""Arguments shared by the commands; what they refuse ends as argparse's one line and exit code 2."""

import argparse
from typing import Any

from nansparse.policy import MARKINGS, MODES


def positive(text: str) -> int:
    """Read a whole number of 1 or more.

    Args:
        text: What the user wrote.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)


def words(text: str) -> tuple[str, ...]:
    """Read words with commas between.

    Args:
        text: What the user wrote.

    Returns:
        The words.
    """
    return tuple(word.strip() for word in text.split(",") if word.strip())


def real(text: str) -> float:
    """Read a real number; its range is checked where it is used.

    Args:
        text: What the user wrote.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from error


def add_keep_memory(parser: argparse.ArgumentParser) -> None:
    """Add the option that calls `nansparse.keep_memory`.

    Args:
        parser: Of a command.
    """
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="keep freed memory in the process (nansparse.keep_memory), for every run, dense ones too",
    )


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add the options of `nansparse.enable`.

    Args:
        parser: Of a command.
    """
    group = parser.add_argument_group("marking and skipping")
    group.add_argument("--mode", choices=MODES, default="conservative", help="where NaN is made")
    group.add_argument("--threshold", type=real, default=0.5, help="NaN share that skips a window, (0, 1]")
    group.add_argument("--epsilon", type=real, default=1e-7, help="relative tolerance of a tie")
    group.add_argument("--max-ties", type=positive, default=1, help="cells that may tie in a stable window")
    group.add_argument(
        "--nan-probability", type=real, default=1.0, help="share of unstable windows marked (aggressive mode)"
    )
    group.add_argument("--seed", type=int, default=0, help="of the random marking, anew for each volume")
    group.add_argument(
        "--marking",
        choices=MARKINGS,
        default="always",
        help="which pooling layers mark: all, those by which the first calls get faster, or none",
    )
    group.add_argument("--engine", default="auto", help="'auto' or the name of one engine")


def policy_of(options: argparse.Namespace) -> dict[str, Any]:
    """Read the options of `nansparse.enable`.

    Args:
        options: Parsed arguments of a command with `add_policy`.

    Returns:
        Keyword arguments of `nansparse.Policy`, without output_nan and generator.
    """
    names = ("mode", "threshold", "epsilon", "max_ties", "nan_probability", "engine", "marking")
    return {name: getattr(options, name) for name in names}
