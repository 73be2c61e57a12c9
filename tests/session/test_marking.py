"""`marking="when-it-pays"`: what the trials decide, on times that the tests make up."""

from __future__ import annotations

import json
import threading
import time
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import nansparse
from nansparse import InputError, NothingToDoWarning, Policy
from nansparse.session import Session
from nansparse.trials import GAIN, PAIRS, TOGETHER, WARM_UP, MarkingTrials
from tests.session.nets import SegNet, UNet, image, seeded


def run_trials(trials, layers, seconds, calls):
    """Run calls in which each layer asks once; a call takes as long as `seconds` says of what marks."""
    for _ in range(calls):
        turn = trials.begin()
        marking = frozenset(layer for layer in layers if turn.marks(layer))
        trials.finish(turn, seconds(marking), 1)


def marking(trials):
    return set(trials.to_dict()["marking"])


@given(gains=st.lists(st.sampled_from([-0.3, -0.05, 0.0, 0.01, 0.06, 0.2]), min_size=1, max_size=4))
def test_layers_are_kept_where_they_gain(gains):
    """Each layer adds its own gain to a call of 2 s."""
    layers = [f"pool{number}" for number in range(len(gains))]
    cost = dict(zip(layers, gains, strict=True))
    trials = MarkingTrials()

    def seconds(marks):
        return 2.0 - sum(cost[layer] for layer in marks)

    run_trials(trials, layers, seconds, WARM_UP + 2 * PAIRS * (len(layers) + 1))
    assert trials.decided
    expected, silent = set(layers), set()
    for layer in layers:  # the rule itself, layer by layer
        if seconds(expected - silent) >= (1 - GAIN) * seconds(expected - silent - {layer}):
            silent.add(layer)
    assert marking(trials) == expected - silent
    # What is left is faster than no marking, or there is nothing left.
    assert not marking(trials) or seconds(marking(trials)) < (1 - GAIN) * 2.0


def test_what_is_only_worth_it_alone_is_judged_against_nothing():
    """Each layer gains on top of the others, but having any costs more than all gain."""
    trials = MarkingTrials()

    def seconds(marks):
        return 1.0 if not marks else 1.5 - 0.2 * len(marks)

    run_trials(trials, ["a", "b"], seconds, WARM_UP + 6 * PAIRS)
    assert [(d["layer"], d["kept"]) for d in trials.to_dict()["decisions"]] == [
        ("a", True), ("b", True), (TOGETHER, False)
    ]  # fmt: skip
    assert marking(trials) == set()
    assert "does not pay on this model and data" in trials.told()[-1]


def test_a_slow_spell_and_a_drift_do_not_decide():
    trials, clock = MarkingTrials(), iter(range(1000))

    def seconds(marks):
        number = next(clock)
        spell = 5.0 if number == WARM_UP + 1 else 0.0
        return 1.0 + 0.01 * number + spell - (0.2 if marks else 0.0)

    run_trials(trials, ["a"], seconds, WARM_UP + 2 * PAIRS)
    assert marking(trials) == {"a"}


def test_larger_inputs_may_take_longer():
    trials = MarkingTrials()
    for number in range(WARM_UP + 2 * PAIRS):
        turn = trials.begin()
        cells = 1000 if turn.marks("a") else 10  # with marks the inputs happen to be larger
        per_cell = 0.8 if cells == 1000 else 1.0
        trials.finish(turn, per_cell * cells, cells)
        assert trials.decided == (number == WARM_UP + 2 * PAIRS - 1)
    assert marking(trials) == {"a"}


def test_a_call_that_fails_or_comes_late_decides_nothing():
    trials = MarkingTrials()
    run_trials(trials, ["a", "b"], lambda marks: 1.0, WARM_UP)
    trials.begin()  # never finished
    late = trials.begin()
    run_trials(trials, ["a", "b"], lambda marks: 1.0 if "a" in marks else 2.0, 2 * PAIRS + 2)
    decisions = trials.to_dict()["decisions"]
    assert [(d["layer"], d["kept"]) for d in decisions] == [("a", True)]
    trials.finish(late, 1e9, 1)
    assert trials.to_dict()["decisions"] == decisions


def test_threads_share_the_trials():
    trials = MarkingTrials()

    def work():
        run_trials(trials, ["a", "b"], lambda marks: 3.0 - ("a" in marks) + ("b" in marks), 200)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trials.decided
    assert marking(trials) == {"a"}


class Clock:
    """Read at the start and at the end of each call; in between it goes on by what the call costs."""

    def __init__(self, cost):
        self.cost, self.now, self.ending, self.record = cost, 0.0, False, None

    def __call__(self):
        self.now += self.cost(self.record) if self.ending else 0.0
        self.ending = not self.ending
        return self.now


def run_model(model, x, cost, calls=40, **options):
    """Run a model under a clock that goes by what `cost` makes of the record; its record and outputs."""
    clock = Clock(cost)
    session = Session(model, Policy(marking="when-it-pays", **options), clock=clock)
    clock.record = session.record
    with session as record, torch.inference_mode():
        outputs = [model(x) for _ in range(calls)]
    return record, outputs


def skipped_in_a_call(record, memory):
    """Say how many windows this call skipped, from the record's running total."""
    now = record.windows_skipped
    skipped, memory["before"] = now - memory.get("before", 0), now
    return skipped


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_a_model_where_nothing_pays_runs_dense_and_says_so(mode):
    model, x, memory = seeded(SegNet), image(), {}
    with torch.inference_mode():
        dense = model(x)
    record, outputs = run_model(model, x, lambda r: 1.0 + 0.5 * (skipped_in_a_call(r, memory) > 0), mode=mode)
    assert record.trials.decided
    assert torch.equal(outputs[-1], dense)
    assert not torch.equal(outputs[0], dense)
    assert "marking does not pay on this model and data" in record.summary()
    told = json.loads(json.dumps(record.to_dict()))
    assert told["policy"]["marking"] == "when-it-pays"
    assert told["marking"]["marking"] == []
    assert all(not decision["kept"] for decision in told["marking"]["decisions"])


def test_where_nothing_marks_calls_run_untouched_until_nan_comes_in():
    model, x, memory = seeded(SegNet), image(), {}
    session = Session(
        model,
        Policy(marking="when-it-pays"),
        clock=(clock := Clock(lambda r: 1.0 + skipped_in_a_call(r, memory))),
    )
    clock.record = session.record
    marked = x.masked_fill(x == 0, torch.nan)
    with nansparse.enable(model, mode="aggressive", max_ties=99), torch.inference_mode():
        expected = model(marked)
    with session as record, torch.inference_mode():
        for _ in range(40):
            model(x)
        before = record.windows
        model(x)
        assert record.windows == before
        found = model(marked)
    assert record.windows > before
    torch.testing.assert_close(found, expected)


def test_a_model_where_it_pays_keeps_its_marks():
    model, x, memory = seeded(SegNet), image(), {}
    with nansparse.enable(model), torch.inference_mode():
        expected = model(x)
    record, outputs = run_model(model, x, lambda r: 1.0 / (1 + skipped_in_a_call(r, memory)))
    assert record.trials.decided
    assert torch.equal(outputs[-1], expected)
    assert "kept" in record.summary()
    assert "does not pay" not in record.summary()


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_a_silent_layer_still_pools_nan_as_defined(mode):
    """NaN at the input keeps its meaning: only a wholly-NaN window becomes NaN."""

    class Pool(nn.Module):
        def forward(self, x):
            return F.max_pool2d(x, 2, return_indices=True)[0]

    x = torch.ones(1, 1, 4, 4)
    x[..., :2, :2] = torch.nan
    x[..., 0, 2] = torch.nan
    record, outputs = run_model(Pool().eval(), x, lambda r: 1.0, mode=mode, output_nan="keep")
    assert record.trials.to_dict()["marking"] == []
    assert outputs[-1].isnan().tolist() == [[[[True, False], [False, False]]]]
    if mode == "aggressive":
        assert outputs[0].isnan().all()  # while it marks, every other window ties


def test_layers_are_told_apart_by_name_and_call():
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool = nn.MaxPool2d(2)

        def forward(self, x):
            return F.max_pool2d(F.max_pool2d(self.pool(x), 2), 2)

    record, _ = run_model(Three().eval(), image(), lambda r: 1.0, mode="aggressive")
    layers = [decision["layer"] for decision in record.trials.to_dict()["decisions"]]
    assert layers == ["pool", "(model)", "(model) (call 2)"]


def test_conservative_pools_without_indices_take_no_part():
    record, _ = run_model(seeded(UNet), image().masked_fill(image() == 0, torch.nan), lambda r: 1.0, calls=3)
    assert record.trials.decided
    assert "no pooling layer of this model marks anything in this mode" in record.summary()


def test_always_is_the_default_and_measures_nothing():
    model = seeded(SegNet)
    with nansparse.enable(model) as record:
        model(image())
    assert record.trials is None
    assert record.to_dict()["marking"] is None
    with nansparse.enable(model, marking="when-it-pays") as record:
        model(image())
    assert "the first calls are still being measured" in record.summary()
    text = nansparse.explain(model, image(), policy=Policy(marking="when-it-pays"))
    assert "still being measured" in text


def test_unknown_marking():
    known = "'always', 'when-it-pays', 'never'"
    with pytest.raises(InputError, match=f"marking must be one of {known}, got 'sometimes'"):
        nansparse.enable(seeded(SegNet), marking="sometimes")


def test_the_real_clock_is_the_default():
    start = time.perf_counter()
    assert Session(seeded(SegNet), Policy())._clock() >= start


@pytest.mark.parametrize("mode", ["conservative", "aggressive"])
def test_never_marks_nothing_and_gives_what_a_dense_run_gives(mode):
    model = seeded(SegNet)
    x = torch.zeros(1, 1, 24, 24)
    x[:, :, 8:16, 8:16] = torch.arange(64.0).view(8, 8) / 64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToDoWarning)
        with nansparse.enable(model, mode=mode, marking="never") as record:
            found = model(x)
    assert not record.marked
    assert record.windows_skipped == 0
    assert torch.equal(found, model(x))
    assert record.to_dict()["marking"] is None


def test_never_lets_nan_at_the_input_be():
    model = seeded(SegNet)
    x = torch.rand(1, 1, 24, 24)
    x[:, :, :12] = torch.nan
    with nansparse.enable(model, marking="never") as record:
        model(x)
    skipped = {layer.layer: layer.windows_skipped for layer in record.layers}
    assert skipped["first"] > 0 < skipped["second"]
    assert record.marked


def test_never_says_when_there_is_nothing_to_save():
    model = seeded(SegNet)
    with (
        pytest.warns(NothingToDoWarning, match="pooling was told to mark nothing, and no large"),
        nansparse.enable(model, marking="never"),
    ):
        model(torch.rand(1, 1, 24, 24))
