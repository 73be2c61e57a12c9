"""Engines that break while a model runs: reported once, left out, and no trace in the result."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch

import nansparse
from nansparse import BrokenEngineWarning, EngineError, Policy, UnexpectedNaNError
from nansparse.activation import SparseActivation
from nansparse.engine import Engine, Registry
from nansparse.library import Library
from tests.oracle import run_by_definition
from tests.session.nets import SegNet, image, seeded


class Spongy(Engine):
    """Works until a given call, then does what it was told to."""

    name = "spongy"

    def __init__(self, fault, calls_before=0, library=None):
        self.libraries = () if library is None else (library,)
        self.fault, self.left, self.calls = fault, calls_before, 0

    def unsupported_reasons(self, activation, convolution):
        return []

    def run(self, activation, convolution):
        self.calls += 1
        out = nansparse.registry.get("dense").run(activation, convolution)
        if self.left:
            self.left -= 1
            return out
        if isinstance(self.fault, BaseException):
            raise self.fault
        return SparseActivation(out.sites, out.rows * self.fault, partial=False)


@pytest.fixture
def run_with(monkeypatch):
    def run(engine, **options):
        registry = Registry()
        registry.register(engine)
        for module in (nansparse.session, nansparse.handlers.convolution):
            monkeypatch.setattr(module, "registry", registry)
        model = seeded(SegNet)
        with nansparse.enable(model, engine=engine.name, output_nan="keep", **options) as record:
            outs = [model(image()) for _ in range(2)]
        return outs, record

    return run


FAULTS = {
    "a kernel raises": RuntimeError("CUDA error: no kernel image\nsecond line"),
    "a library is missing": OSError("libcudart.so.12: cannot open shared object file"),
    "out of memory": MemoryError(),
    "NaN that the definitions do not give": torch.nan,
}


@pytest.mark.parametrize("calls_before", [0, 2])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_the_run_goes_on_with_the_next_engine(run_with, fault, calls_before):
    engine = Spongy(fault, calls_before)
    with pytest.warns(BrokenEngineWarning, match="'spongy' broke in layer") as told:
        outs, record = run_with(engine)
    assert len(told) == 1
    assert engine.calls == calls_before + 1
    expected = run_by_definition(seeded(SegNet), Policy(), image())
    for out in outs:
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    convolutions = [layer for layer in record.layers if layer.operation.startswith("conv")]
    assert sum(layer.calls for layer in convolutions if layer.engine == "spongy") == calls_before
    assert sum(layer.calls for layer in convolutions) == 2 * len({layer.layer for layer in convolutions})
    after = [layer for layer in convolutions if layer.engine == "dense"]
    notes = {note for layer in after for note in layer.notes}
    assert notes == {"spongy: left out, it broke earlier in this run"}


def test_the_report_is_one_line_with_the_remedy(run_with):
    library = Library("torch", "pip install spongy")
    with pytest.warns(BrokenEngineWarning) as told:
        _, record = run_with(Spongy(FAULTS["a kernel raises"], library=library))
    sentence = (
        "engine 'spongy' broke in layer 'third' and was left out of the rest of the run "
        "(RuntimeError: CUDA error: no kernel image); "
        f"update or reinstall torch {torch.__version__} (pip install spongy), or name another engine"
    )
    assert record.broken_engines() == [sentence]
    assert str(told[0].message) == f"nansparse: {sentence}"
    assert sentence in record.summary()
    assert record.to_dict()["broken_engines"] == [sentence]


def test_another_run_tries_it_again(run_with):
    engine = Spongy(RuntimeError("once"))
    with pytest.warns(BrokenEngineWarning):
        run_with(engine)
    engine.left = 1_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, record = run_with(engine)
    assert record.broken_engines() == []


def test_interrupting_is_no_fault_of_the_engine(run_with):
    with pytest.raises(KeyboardInterrupt):
        run_with(Spongy(KeyboardInterrupt()))


def test_the_dense_engine_has_nobody_behind_it(run_with, monkeypatch):
    def fail(self, activation, convolution):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(type(nansparse.registry.get("dense")), "run", fail)
    with pytest.raises(RuntimeError, match="no memory left"):
        run_with(Spongy(RuntimeError("first")))


def test_nan_that_the_layer_itself_makes_is_not_the_engines_fault(run_with, monkeypatch):
    model = seeded(SegNet)
    model.third.weight.data[:] = torch.inf
    monkeypatch.setattr("tests.session.test_broken_engines.seeded", lambda _: model)
    with pytest.raises(UnexpectedNaNError, match="layer 'third' made NaN"):
        run_with(Spongy(1.0))


def test_threads_report_it_once(monkeypatch):
    registry = Registry()
    registry.register(Spongy(RuntimeError("in a thread")))
    for module in (nansparse.session, nansparse.handlers.convolution):
        monkeypatch.setattr(module, "registry", registry)
    model, outs = seeded(SegNet), []

    def run_in_threads():
        with nansparse.enable(model, engine="spongy") as record:
            threads = [threading.Thread(target=lambda: outs.append(model(image()))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return record

    with pytest.warns(BrokenEngineWarning) as told:
        record = run_in_threads()
    assert len(outs) == 4
    assert all(torch.equal(outs[0], out) for out in outs)
    assert len(told) == len(record.broken_engines()) == 1


def test_an_engine_that_cannot_be_loaded_is_told_once(monkeypatch):
    monkeypatch.setattr(
        type(nansparse.registry), "faults", lambda self: {"spongy": "ImportError: no libspongy"}
    )
    model = seeded(SegNet)
    expected = "engine 'spongy' could not be loaded: ImportError: no libspongy"
    with pytest.warns(BrokenEngineWarning, match=expected), nansparse.enable(model):
        model(image())
    assert expected in nansparse.explain(model, image())


def test_asking_for_an_engine_that_cannot_be_loaded_is_refused(monkeypatch):
    broken = Registry()
    broken._faults["spongy"] = "OSError: libspongy.so"
    monkeypatch.setattr(nansparse.session, "registry", broken)
    broken._loaded = True
    with pytest.raises(EngineError, match=r"^engine 'spongy' could not be loaded: OSError: libspongy\.so$"):
        nansparse.enable(seeded(SegNet), engine="spongy")
