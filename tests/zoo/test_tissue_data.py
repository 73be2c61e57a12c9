"""What is held out of training stays unseen."""

from nansparse.zoo.tissue_data import held_out_slices, training_slices


def test_no_training_input_shows_a_held_out_slice() -> None:
    held_out = set(held_out_slices())
    assert len(held_out) == 32
    for index in training_slices():
        assert held_out.isdisjoint(range(index - 3, index + 4))


def test_the_guard_is_no_wider_than_needed() -> None:
    # Every slice around the brain is held out, trained on, or too close to a held-out one.
    held_out, trained = held_out_slices(), training_slices()
    for index in range(32, 227):
        close = any(abs(index - other) <= 3 for other in held_out)
        assert (index in trained) != close
    assert len(trained) > 130
