"""Memory for rows is used again while a block runs, never what something uses, and not beyond the block."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest
import torch

import nansparse
from nansparse.pool import KEPT, LEAST_CELLS, MOST_CELLS, RowPool, empty_rows, make_room
from tests.session.nets import SegNet, image, seeded

LIKE = torch.empty(0)
SHAPE = (LEAST_CELLS // 4, 4)
# Three of these are more than may wait in any case.
LARGE = (MOST_CELLS // 8, 4)


@pytest.fixture
def pool() -> Iterator[RowPool]:
    pool = RowPool()
    with pool.serve():
        yield pool
    pool.close()


def waiting(pool: RowPool) -> int:
    """Cells that wait."""
    assert not pool._returned
    return sum(map(len, pool._free))


def test_what_was_dropped_is_used_again(pool: RowPool) -> None:
    first = empty_rows(LIKE, *SHAPE)
    at = first.data_ptr()
    del first
    assert empty_rows(LIKE, *SHAPE).data_ptr() == at


def test_a_later_call_uses_it_again(pool: RowPool) -> None:
    first = empty_rows(LIKE, *SHAPE)
    at = first.data_ptr()
    del first
    with pool.serve():
        assert empty_rows(LIKE, *SHAPE).data_ptr() == at


def test_a_view_keeps_the_memory(pool: RowPool) -> None:
    first = empty_rows(LIKE, *SHAPE)
    first.fill_(1.0)
    view, at = first[1:3].T, first.data_ptr()
    del first
    other = empty_rows(LIKE, *SHAPE)
    other.fill_(2.0)
    assert other.data_ptr() != at
    assert view.eq(1.0).all()


def test_memory_outlives_its_pool(pool: RowPool) -> None:
    kept = empty_rows(LIKE, *SHAPE)
    kept.fill_(3.0)
    pool.close()
    with RowPool().serve():
        empty_rows(LIKE, *SHAPE).fill_(4.0)
    gc.collect()
    assert kept.eq(3.0).all()


def test_nothing_waits_after_the_block(pool: RowPool) -> None:
    kept, dropped = empty_rows(LIKE, *SHAPE), empty_rows(LIKE, *SHAPE)
    del dropped
    assert waiting(pool) > 0
    pool.close()
    assert waiting(pool) == 0
    del kept
    assert waiting(pool) == 0


def test_a_block_much_larger_than_needed_is_left(pool: RowPool) -> None:
    large = empty_rows(LIKE, 4 * SHAPE[0], SHAPE[1])
    at = large.data_ptr()
    del large
    assert empty_rows(LIKE, *SHAPE).data_ptr() != at


def test_no_more_is_held_than_a_dense_run_would(pool: RowPool) -> None:
    blocks = [empty_rows(LIKE, *LARGE) for _ in range(3 * KEPT)]
    assert waiting(pool) == 0
    # As long as much is used, little waits; three blocks are more than little.
    del blocks[KEPT:]
    assert waiting(pool) <= MOST_CELLS
    del blocks
    assert 0.9 * KEPT <= waiting(pool) / (LARGE[0] * LARGE[1]) <= 1.1 * KEPT


def test_memory_from_elsewhere_counts(pool: RowPool) -> None:
    blocks = [empty_rows(LIKE, *LARGE) for _ in range(KEPT)]
    del blocks
    make_room(0)
    assert waiting(pool) > 0.9 * KEPT * LARGE[0] * LARGE[1]
    make_room(KEPT * LARGE[0] * LARGE[1])
    assert 0 < waiting(pool) <= MOST_CELLS


def test_small_networks_may_keep_many_blocks(pool: RowPool) -> None:
    blocks = [empty_rows(LIKE, *SHAPE) for _ in range(2 * MOST_CELLS // LEAST_CELLS)]
    del blocks
    assert 0.9 * MOST_CELLS < waiting(pool) <= MOST_CELLS


def test_results_that_are_kept_do_not_count() -> None:
    pool, results = RowPool(), []
    for _ in range(2 * KEPT):
        with pool.serve():
            blocks = [empty_rows(LIKE, *LARGE) for _ in range(KEPT)]
            results.append(blocks.pop())
            del blocks
    assert waiting(pool) > 1.9 * LARGE[0] * LARGE[1]


def test_rows_begin_at_a_cache_line(pool: RowPool) -> None:
    for rows in range(SHAPE[0], SHAPE[0] + 3):
        assert empty_rows(LIKE, rows, SHAPE[1]).data_ptr() % 64 == 0


def test_other_dtypes_and_small_pieces_are_left_to_torch(pool: RowPool) -> None:
    kept = [empty_rows(LIKE.double(), *SHAPE), empty_rows(LIKE, 3, 4)]
    assert kept[0].dtype == torch.float64
    assert kept[1].shape == (3, 4)
    del kept
    assert waiting(pool) == 0


def test_threads_outside_the_block_have_memory_of_their_own(pool: RowPool) -> None:
    seen: list[int] = []
    at = empty_rows(LIKE, *SHAPE).data_ptr()
    thread = threading.Thread(target=lambda: seen.append(empty_rows(LIKE, *SHAPE).data_ptr()))
    thread.start()
    thread.join()
    assert waiting(pool) >= LEAST_CELLS
    assert seen != [at]


def test_many_threads_share_a_pool_without_sharing_memory() -> None:
    pool, faults = RowPool(), []

    def work(number: int) -> None:
        with pool.serve():
            for _ in range(50):
                mine = [empty_rows(LIKE, *SHAPE).fill_(number) for _ in range(3)]
                faults.extend(one for one in mine if not one.eq(number).all())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert waiting(pool) <= MOST_CELLS


def test_a_pool_serves_again_after_an_error(pool: RowPool) -> None:
    inner = RowPool()
    with pytest.raises(ValueError, match="stop"), inner.serve():
        raise ValueError("stop")
    at = empty_rows(LIKE, *SHAPE).data_ptr()
    assert waiting(inner) == 0
    assert empty_rows(LIKE, *SHAPE).data_ptr() == at


def test_outputs_of_two_calls_do_not_share_memory() -> None:
    model = seeded(SegNet)
    one, other = image(), image() * 2
    with torch.no_grad(), nansparse.enable(model, mode="aggressive"):
        first = model(one)
        copy = first.clone()
        model(other)
    assert torch.equal(first, copy)


def test_an_enabled_block_lets_go_of_its_memory() -> None:
    model = seeded(SegNet)
    block = nansparse.enable(model, mode="aggressive")
    with torch.no_grad(), block:
        model(torch.nn.functional.interpolate(image(), scale_factor=8))
        assert waiting(block._pool) > 0
    assert waiting(block._pool) == 0
