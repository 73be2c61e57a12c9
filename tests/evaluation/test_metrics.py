"""Dice and disagreement, against naive loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nansparse.errors import InputError
from nansparse.evaluation import dice, disagreeing

maps = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(a=maps, seed=st.integers(0, 100))
def test_dice_agrees_with_a_naive_loop(a: list[int], seed: int) -> None:
    b = np.random.default_rng(seed).permutation(a).tolist()
    result = dice(np.array(a), np.array(b), range(5))
    for label in range(5):
        both = sum(1 for x, y in zip(a, b, strict=True) if x == label and y == label)
        total = a.count(label) + b.count(label)
        assert result[label] == (2 * both / total if total else 1.0)
    assert disagreeing(np.array(a), np.array(b)) == sum(x != y for x, y in zip(a, b, strict=True))


def test_a_known_overlap() -> None:
    a = np.array([[1, 1, 0], [2, 2, 0]])
    b = np.array([[1, 0, 0], [2, 2, 1]])
    assert dice(a, b, [1, 2, 7]) == {1: 0.5, 2: 1.0, 7: 1.0}
    assert disagreeing(a, b) == 2


def test_torch_and_numpy_mix() -> None:
    a, b = torch.tensor([0, 1, 1]), np.array([0, 1, 0], np.uint8)
    assert dice(a, b, [1]) == dice(b, a, [1]) == {1: 2 / 3}


def test_large_maps_do_not_overflow() -> None:
    a = np.ones(70_000, np.uint8)
    assert dice(a, a, [1]) == {1: 1.0}


def test_other_shapes_and_numbers_are_refused() -> None:
    with pytest.raises(InputError, match=r"one shape, got \(2,\) and \(3,\)"):
        dice(np.zeros(2, int), np.zeros(3, int), [0])
    with pytest.raises(InputError, match="whole numbers, got float64"):
        disagreeing(np.zeros(2), np.zeros(2, int))
