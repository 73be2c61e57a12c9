"""What every test module shares: threads, drawn examples, and the skip of tests without their device."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest
import torch
from hypothesis import settings

from nansparse import NansparseError, registry
from nansparse.compiled.availability import NUMBA

# Modules of `nansparse.compiled`, in an order in which their halves take about as long to compile.
LOOPS = ("windows", "cells", "means", "pooling", "steps", "repeats", "tiles", "winograd", "products")

# No deadline: the first call of an operation in torch may take long. The same examples are drawn on every
# run, so that a failure seen once is seen again.
settings.register_profile("nansparse", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("hunt", settings.get_profile("nansparse"), derandomize=False)
settings.load_profile("nansparse")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run insist on engines whose tests would be skipped where their library is missing."""
    parser.addoption(
        "--require-engines", default="", metavar="NAMES", help="engines, comma between, that must be usable"
    )
    parser.addoption("--require-browser", action="store_true", help="fail where no Chromium is found")


def compile_loops(*, backwards: bool) -> None:
    """Where there are no compiled loops yet, let two workers compile half of them each: numba keeps them."""
    if NUMBA.problem:
        return
    for name in reversed(LOOPS) if backwards else LOOPS:
        import_module(f"nansparse.compiled.{name}")


def pytest_configure(config: pytest.Config) -> None:
    """Give each pytest-xdist worker one thread, so that they do not fight over the cores; check engines."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
        compile_loops(backwards=config.workerinput["workerid"] != "gw0")
        return
    for name in filter(None, config.getoption("--require-engines").split(",")):
        try:
            registry.usable(name.strip())
        except NansparseError as error:
            raise pytest.UsageError(f"--require-engines: {error}") from error


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes long first, so that no worker waits for another at the end; skip what needs CUDA."""
    items.sort(key=lambda item: "slow" not in item.keywords)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def exact_float32(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare float32 with float32: TF32, torch's default for convolutions on GPUs, keeps ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before and "cuda" not in request.keywords
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def generator() -> torch.Generator:
    """Return a random source of the test's own: the global state stays as it is."""
    return torch.Generator().manual_seed(0)
