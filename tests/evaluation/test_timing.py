"""Timing keeps every sample, never counts the first call, and lets no way always go first."""

import threading
from collections import Counter
from itertools import pairwise

import pytest
import torch

from nansparse.errors import InputError
from nansparse.evaluation.conditions import denormals_flushed, find_device, fixed_conditions
from nansparse.evaluation.timing import Timing, balanced_order, time_interleaved


def test_ways_run_in_turn_in_a_balanced_order_after_the_warm_up():
    order = []
    ways = {name: lambda name=name: order.append(name) for name in "abc"}
    times = time_interleaved(ways, repeats=3, warmup=2, shortest=0.0)
    # Two calls to warm up and one to see how long a call lasts.
    assert "".join(order[:9]) == "aaabbbccc"
    assert "".join(order[9:]) == "".join("abc"[i] for turn in range(3) for i in balanced_order(3, turn))
    assert all(len(times[name].seconds) == 3 for name in ways)


@pytest.mark.parametrize("count", range(1, 14))
def test_over_the_turns_each_way_follows_each_other_one_equally_often(count):
    turns = count * (1 + count % 2)
    orders = [balanced_order(count, turn) for turn in range(turns)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    pairs = Counter(pair for order in orders for pair in pairwise(order))
    assert len(pairs) == count * (count - 1)
    assert len(set(pairs.values())) <= 1


def test_short_computations_are_called_several_times_a_sample():
    times = time_interleaved({"nothing": lambda: None}, repeats=2, shortest=1e-3)
    assert times["nothing"].calls > 100


def test_what_is_far_slower_than_the_fastest_is_sampled_once(monkeypatch):
    called = []
    seconds = {"slow": 5.1, "fair": 4.9, "fast": 1.0}

    def clocked(run, calls, device):
        return seconds[run()] * calls

    monkeypatch.setattr("nansparse.evaluation.timing.clocked", clocked)
    ways = {name: lambda name=name: called.append(name) or name for name in seconds}
    times = time_interleaved(ways, repeats=4, warmup=1, shortest=0.0, patience=5.0)
    assert list(times) == ["slow", "fair", "fast"]
    assert [len(timing.seconds) for timing in times.values()] == [1, 4, 4]
    assert times["slow"] == Timing((5.1,), 1)
    assert called.count("slow") == 2


def test_median_and_quartiles_are_those_of_the_samples():
    timing = Timing((5.0, 1.0, 2.0, 4.0, 3.0))
    assert (timing.median, timing.quartiles) == (3.0, (2.0, 4.0))
    assert Timing((7.0,)).quartiles == (7.0, 7.0)
    assert timing.to_dict()["seconds"] == [5.0, 1.0, 2.0, 4.0, 3.0]


@pytest.mark.parametrize("numbers", [{"repeats": 0}, {"repeats": 1, "warmup": 0}])
def test_no_sample_and_no_warm_up_are_refused(numbers):
    with pytest.raises(InputError, match="at least 1"):
        time_interleaved({"nothing": lambda: None}, **numbers)


def in_a_new_thread(function):
    # A thread of its own has a thread pool of its own, whose workers take over the flag.
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_conditions_flush_denormals_in_every_worker_when_they_come_first():
    def first():
        with fixed_conditions(2):
            return denormals_flushed()

    assert in_a_new_thread(first)


def test_workers_that_keep_denormals_are_found():
    def late():
        torch.set_num_threads(2)
        torch.ones(1 << 20).sum()  # starts the pool
        with fixed_conditions(2):
            return denormals_flushed()

    def never():
        return denormals_flushed()

    assert not in_a_new_thread(late)
    assert not in_a_new_thread(never)


@pytest.mark.parametrize("name", ["warp", "meta", "cuda:99"])
def test_devices_that_are_not_there_are_refused(name):
    with pytest.raises(InputError, match="device"):
        find_device(name)
