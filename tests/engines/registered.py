"""The engines that are registered, as test parameters."""

from __future__ import annotations

import pytest

from nansparse import registry
from nansparse.engine import Engine

NAMES = registry.names()


def usable(name: str, device: str = "cpu") -> Engine:
    """Find an engine, or skip the test with what it lacks."""
    engine = registry.get(name)
    if engine.problem:
        pytest.skip(engine.problem)
    if device not in engine.devices:
        pytest.skip(f"{name} runs on {' and '.join(engine.devices)}")
    return engine
