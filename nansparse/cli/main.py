"""The `nansparse` command: reads the arguments, runs one command, and turns errors into one clear line.

Exit codes: 0 done, 1 done but for what was reported, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from nansparse import __version__
from nansparse.cli import bench, calibrate, compare, demo, engines, predict, report, zoo
from nansparse.errors import NansparseError

COMMANDS = (bench, calibrate, compare, demo, engines, predict, report, zoo)
DONE = 0
BAD_INPUT = 2
INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands.

    Returns:
        The parser; its `run` default is the command's function.
    """
    parser = argparse.ArgumentParser(
        prog="nansparse", description="Skip the convolutions that do not matter."
    )
    parser.add_argument("--version", action="version", version=f"nansparse {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Words after the program's name; those of the process when None.

    Returns:
        The exit code.
    """
    options = build_parser().parse_args(arguments)
    try:
        options.command_line = shlex.join(["nansparse", *(sys.argv[1:] if arguments is None else arguments)])
        return options.run(options) or DONE
    except NansparseError as error:
        print(f"nansparse: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"nansparse: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr)
        return BAD_INPUT
    except ImportError as error:
        print(f"nansparse: {error.name} is missing: pip install 'nansparse[demo]'", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("nansparse: interrupted, nothing half-written", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
