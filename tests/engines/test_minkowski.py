"""What only the MinkowskiEngine adapter does: loading without traces, maps that go with their sites."""

from __future__ import annotations

import collections
import gc
import subprocess
import sys

import pytest
import torch
from nansparse.adapters.minkowski import MinkowskiEngine

from tests.engines.drawing import Case
from tests.functional.drawing import values

LOAD = """
import collections, sys
from nansparse.adapters.minkowski import MinkowskiEngine
had, path = hasattr(collections, "Sequence"), list(sys.path)
engine = MinkowskiEngine()
assert "MinkowskiEngine" not in sys.modules
assert not engine.problem, engine.problem
assert "MinkowskiEngine" in sys.modules
assert sys.path == path
assert hasattr(collections, "Sequence") == had
"""


@pytest.fixture
def engine():
    found = MinkowskiEngine()
    if found.problem:
        pytest.skip(found.problem)
    return found


def test_loading_leaves_no_traces(engine):
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", LOAD], check=True, timeout=120)


def test_a_failed_import_leaves_no_traces(monkeypatch):
    broken = MinkowskiEngine()
    monkeypatch.setattr(broken.library, "module", "no_such_minkowski")
    monkeypatch.setattr(broken.library, "is_installed", True)
    before = list(sys.path)
    assert "no_such_minkowski" in broken.problem
    assert sys.path == before
    assert not hasattr(collections, "Sequence")


def test_layers_that_keep_a_set_of_sites_share_their_maps_and_those_go_with_it(engine):
    x = values(0, (1, 4, 8, 8), torch.float32)
    x[..., :3] = torch.nan
    case = Case(x, values(1, (4, 4, 3, 3), torch.float32), None, {"groups": 1, "padding": 1}, 0.4, False)
    activation, convolution = case.for_engine()
    out = engine.run(activation, convolution)
    engine.run(out, convolution)
    assert len(engine._maps) == 1
    del activation, out
    gc.collect()
    assert len(engine._maps) == 0


@pytest.mark.parametrize("pattern", ["no site", "no output", "outputs that read padding alone"])
def test_sets_that_would_crash_the_library_never_reach_it(engine, pattern):
    x = torch.full((1, 2, 5, 5), torch.nan)
    padding = 0
    if pattern != "no site":
        x[..., 0, 0] = 1.0
    if pattern == "outputs that read padding alone":
        padding = 4
    case = Case(
        x, values(1, (3, 2, 3, 3), torch.float32), None, {"groups": 1, "padding": padding}, 0.5, False
    )
    activation, convolution = case.for_engine()
    out = engine.run(activation, convolution)
    torch.testing.assert_close(out.to_dense(), case.expected(), equal_nan=True)
