"""`nansparse engines`: what a user learns about installed, missing and broken engines."""

from __future__ import annotations

import json

import pytest
import torch

import nansparse
from nansparse.cli import engines
from nansparse.cli.main import main
from nansparse.engine import Registry
from nansparse.library import Library
from tests.engines.test_library import NeedsThing


@pytest.fixture
def registry(monkeypatch):
    changed = Registry()
    assert changed.names()
    monkeypatch.setattr(engines, "registry", changed)
    return changed


def test_every_engine_has_a_line(capsys):
    assert main(["engines"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"torch {torch.__version__} (")
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    for name in nansparse.registry.names():
        engine = nansparse.registry.get(name)
        assert ("ready" in lines[name]) == (not engine.problem)
        assert not engine.problem or f"{name}: {engine.problem}" in printed
    assert lines["dense"].split()[1:3] == ["ready", "torch"]


def test_a_missing_library_comes_with_its_command(registry, capsys):
    registry.register(NeedsThing(Library("no_such_library", "pip install no-such-library")))
    assert main(["engines"]) == 0
    printed = capsys.readouterr().out
    assert "thing: no_such_library is not installed: pip install no-such-library" in printed.splitlines()
    assert "not installed" in next(line for line in printed.splitlines() if line.startswith("thing "))


def test_a_broken_engine_is_no_missing_one(registry, capsys, monkeypatch, tmp_path):
    (tmp_path / "broken_thing.py").write_text("raise OSError('libcudart.so.12: no such file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.register(NeedsThing(Library("broken_thing", "pip install broken-thing")))
    registry._faults["spongy"] = "ImportError: no spongy"
    assert main(["engines", "--json"]) == 0
    found = {entry["engine"]: entry for entry in json.loads(capsys.readouterr().out)["engines"]}
    assert found["thing"]["status"] == found["spongy"]["status"] == "broken"
    assert found["thing"]["devices"] == []
    assert "libcudart.so.12" in found["thing"]["problem"]
    assert "pip install broken-thing" in found["thing"]["problem"]
    assert found["spongy"]["problem"] == "ImportError: no spongy"
    assert found["dense"]["devices"][0] == "cpu"
