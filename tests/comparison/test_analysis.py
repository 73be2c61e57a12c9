"""Pareto front and recommendation, against a search over all pairs; memory; the names of ways."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nansparse.comparison.analysis import pareto_front, recommend
from nansparse.comparison.memory import peak_memory
from nansparse.comparison.ways import read_baselines, read_policy
from nansparse.evaluation.results import Row

points = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


def rows_of(pairs):
    return [
        Row({"n": n}, str(n), values={"speed_up": float(s), "loss": w / 100})
        for n, (s, w) in enumerate(pairs)
    ]


@given(points)
def test_the_front_is_what_nothing_beats(pairs):
    front = {row.cell["n"] for row in pareto_front(rows_of(pairs))}
    for n, (speed, loss) in enumerate(pairs):
        beaten = any((s, -w) != (speed, -loss) and s >= speed and w <= loss for s, w in pairs)
        assert (n in front) == (not beaten)


@given(points, st.integers(0, 4))
def test_the_fastest_within_the_loss_is_recommended(pairs, most):
    chosen = recommend(rows_of(pairs), most / 100)
    within = [speed for speed, loss in pairs if loss <= most and speed > 1]
    if within:
        assert pairs[chosen["cell"]["n"]][0] == max(within)
        assert pairs[chosen["cell"]["n"]][1] <= most
    else:
        assert chosen["cell"] is None
        assert "dense" in chosen["sentence"]


def test_peak_memory_sees_what_is_freed_again():
    def run():
        torch.ones(64, 1 << 20).sum()

    peak = peak_memory(run, torch.device("cpu"))
    if peak is None:
        pytest.skip("this system does not tell the peak of its memory")
    assert 200 < peak < 600
    assert peak_memory(lambda: None, torch.device("cpu")) < 20


def test_names_say_what_is_run():
    plan = read_policy("aggressive:threshold=0.75,epsilon=1e-3+bbox+bf16+background=2+nchw")
    assert plan.policy == {"mode": "aggressive", "threshold": 0.75, "epsilon": 1e-3}
    assert (plan.cropped, plan.bfloat16, plan.margin, plan.channels_last) == (True, True, 2, False)
    assert (
        plan.name == "aggressive 0.75, epsilon 0.001, bounding box, bfloat16, background NaN, margin 2, NCHW"
    )
    assert [plan.name for plan in read_baselines("bf16")] == ["dense, NCHW", "dense, bfloat16"]
    assert [plan.exact for plan in read_baselines("channels_last,compile,bbox,bf16")] == [
        True,
        True,
        True,
        False,
        False,
    ]
