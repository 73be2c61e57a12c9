"""Memory for rows is used again while a call runs, never while something uses it, and not beyond the call."""

from __future__ import annotations

import gc
import threading

import torch

import nansparse
from nansparse.pool import LEAST_CELLS, MOST_CELLS, RowPool, empty_rows
from tests.session.nets import SegNet, image, seeded

LIKE = torch.empty(0)
SHAPE = (LEAST_CELLS // 4, 4)


def test_what_was_dropped_is_used_again() -> None:
    with RowPool():
        first = empty_rows(LIKE, *SHAPE)
        at = first.data_ptr()
        del first
        assert empty_rows(LIKE, *SHAPE).data_ptr() == at


def test_a_view_keeps_the_memory() -> None:
    with RowPool():
        first = empty_rows(LIKE, *SHAPE)
        first.fill_(1.0)
        view, at = first[1:3].T, first.data_ptr()
        del first
        other = empty_rows(LIKE, *SHAPE)
        other.fill_(2.0)
        assert other.data_ptr() != at
        assert view.eq(1.0).all()


def test_memory_outlives_its_pool() -> None:
    with RowPool():
        kept = empty_rows(LIKE, *SHAPE)
        kept.fill_(3.0)
    with RowPool():
        empty_rows(LIKE, *SHAPE).fill_(4.0)
    gc.collect()
    assert kept.eq(3.0).all()


def test_a_block_much_larger_than_needed_is_left() -> None:
    with RowPool():
        large = empty_rows(LIKE, 4 * SHAPE[0], SHAPE[1])
        at = large.data_ptr()
        del large
        assert empty_rows(LIKE, *SHAPE).data_ptr() != at


def test_little_is_kept() -> None:
    with RowPool() as pool:
        large = empty_rows(LIKE, MOST_CELLS // 4 + 1, 4)
        del large
        assert not pool._returned
        blocks = [empty_rows(LIKE, *SHAPE) for _ in range(2 * MOST_CELLS // LEAST_CELLS)]
        del blocks
        assert 0.9 * MOST_CELLS < sum(map(len, pool._returned)) <= MOST_CELLS
    assert not pool._free
    assert not pool._returned


def test_rows_begin_at_a_cache_line() -> None:
    for rows in range(SHAPE[0], SHAPE[0] + 3):
        assert empty_rows(LIKE, rows, SHAPE[1]).data_ptr() % 64 == 0


def test_other_dtypes_and_small_pieces_are_left_to_torch() -> None:
    with RowPool() as pool:
        kept = [empty_rows(LIKE.double(), *SHAPE), empty_rows(LIKE, 3, 4)]
        assert kept[0].dtype == torch.float64
        assert kept[1].shape == (3, 4)
        del kept
        assert not pool._returned


def test_each_thread_has_its_own_pool() -> None:
    seen: list[int] = []
    with RowPool() as pool:
        at = empty_rows(LIKE, *SHAPE).data_ptr()
        thread = threading.Thread(target=lambda: seen.append(empty_rows(LIKE, *SHAPE).data_ptr()))
        thread.start()
        thread.join()
        assert len(pool._returned) == 1
    assert seen != [at]


def test_outputs_of_two_calls_do_not_share_memory() -> None:
    model = seeded(SegNet)
    one, other = image(), image() * 2
    with torch.no_grad(), nansparse.enable(model, mode="aggressive"):
        first = model(one)
        copy = first.clone()
        model(other)
    assert torch.equal(first, copy)
