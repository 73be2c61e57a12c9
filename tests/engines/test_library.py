"""Optional libraries: missing, broken and sound ones, and what a user who asks for their engine reads."""

from __future__ import annotations

import re
import sys

import pytest
import torch

import nansparse
from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.engine import Engine, Registry
from nansparse.errors import EngineError
from nansparse.library import Library, first_line
from nansparse.windows import convolution_windows


def module(folder, monkeypatch, text: str) -> Library:
    """Put a module where Python finds it, and never mind what it leaves behind."""
    (folder / "sparse_thing.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "sparse_thing", raising=False)
    return Library("sparse_thing", "pip install sparse-thing")


class NeedsThing(Engine):
    name = "thing"

    def __init__(self, *libraries):
        self.libraries = libraries

    def unsupported_reasons(self, activation, convolution):
        return [self.problem] if self.problem else []

    def run(self, activation, convolution):
        raise NotImplementedError


def test_a_missing_library_names_the_command_that_installs_it():
    library = Library("no_such_library.torch", "pip install no-such-library")
    assert not library.is_installed
    assert library.versions == ""
    assert library.problem == "no_such_library is not installed: pip install no-such-library"
    with pytest.raises(EngineError, match=r"^no_such_library is not installed: pip install no-such-library$"):
        library.load()


def test_a_library_that_does_not_load_says_why_and_is_tried_once(tmp_path, monkeypatch):
    tried = tmp_path / "tried"
    text = f"with open({str(tried)!r}, 'a') as file:\n    file.write('x')\n"
    text += "raise OSError('libthing.so.12: no such file\\nmore')\n"
    library = module(tmp_path, monkeypatch, text)
    assert library.is_installed
    assert not tried.exists()
    for _ in range(2):
        assert library.problem == (
            "sparse_thing cannot be imported (OSError: libthing.so.12: no such file); "
            "install the build that fits: pip install sparse-thing"
        )
    with pytest.raises(EngineError, match=r"libthing\.so\.12"):
        library.load()
    assert tried.read_text() == "x"


def test_a_sound_library_loads(tmp_path, monkeypatch):
    library = module(tmp_path, monkeypatch, "answer = 42\n")
    assert library.problem == ""
    assert library.load().answer == 42


def test_the_version_is_that_of_the_distribution():
    assert Library("torch.nn", "").versions == f"torch {torch.__version__}"


def test_an_engine_needs_one_of_its_libraries(tmp_path, monkeypatch):
    missing = Library("no_such_library", "pip install no-such-library")
    sound = module(tmp_path, monkeypatch, "")
    assert NeedsThing().problem == ""
    assert NeedsThing(missing).problem == missing.problem
    assert NeedsThing(missing, sound).problem == ""


def test_asking_for_an_engine_whose_library_is_missing_gives_one_line(monkeypatch):
    registry = Registry()
    registry.register(NeedsThing(Library("no_such_library", "pip install no-such-library")))
    monkeypatch.setattr(nansparse.session, "registry", registry)
    expected = (
        r"^engine 'thing' cannot run here: no_such_library is not installed: pip install no-such-library$"
    )
    with pytest.raises(EngineError, match=expected):
        nansparse.enable(torch.nn.Conv2d(1, 1, 3).eval(), engine="thing")
    assert registry.get("thing").problem  # looking at it is allowed


def test_every_registered_engine_without_its_library_gives_that_as_its_only_reason():
    activation = SparseActivation.from_dense(torch.zeros(1, 2, 4, 4))
    windows = convolution_windows((4, 4), 3)
    convolution = Convolution(torch.zeros(2, 1, 3, 3), None, windows, groups=2, threshold=0.5)
    for name in nansparse.registry.names():
        engine = nansparse.registry.get(name)
        if engine.problem:
            assert engine.unsupported_reasons(activation, convolution) == [engine.problem]
            assert re.search(r": (apt-get install [\w-]+ && )?pip install .*\w$", engine.problem)


def test_exceptions_fit_one_line():
    assert first_line(RuntimeError("one\ntwo")) == "RuntimeError: one"
    assert first_line(RuntimeError()) == "RuntimeError"
