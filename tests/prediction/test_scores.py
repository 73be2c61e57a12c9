"""From scores to labels: weighted means, and what nobody scored."""

import pytest
import torch

from nansparse import InputError
from nansparse.prediction.pieces import Piece, slice_pieces
from nansparse.prediction.scores import DirectLabels, SummedScores

SHAPE = (3, 4, 5)


def scores(classes=3, seed=0):
    """Draw scores (slices along the last axis, classes, 3, 4), as coronal pieces of one slice give them."""
    return torch.randn(5, classes, 3, 4, generator=torch.Generator().manual_seed(seed))


def feed(sink, volume_scores, weight=1.0, plane="coronal"):
    pieces = slice_pieces(SHAPE, plane, 1, 1, weight)
    for piece, part in zip(pieces, volume_scores, strict=True):
        sink.add(piece, part[None])


def test_one_view_gives_the_highest_score_both_ways():
    given = scores()
    direct, summed = DirectLabels(SHAPE, "softmax"), SummedScores(SHAPE, "softmax")
    feed(direct, given)
    feed(summed, given)
    expected = given.argmax(1).permute(1, 2, 0)
    assert torch.equal(direct.labels(), expected.int())
    assert torch.equal(summed.labels(), expected.int())
    torch.testing.assert_close(summed.probabilities(), given.softmax(1).permute(1, 2, 3, 0))


def test_views_are_added_by_their_weights():
    one, two = scores(seed=1), scores(seed=2)
    sink = SummedScores(SHAPE, "softmax")
    feed(sink, one, 0.4)
    feed(sink, two, 0.2)
    mean = (0.4 * one + 0.2 * two) / 0.6
    assert torch.equal(sink.labels(), mean.argmax(1).permute(1, 2, 0).int())
    torch.testing.assert_close(sink.probabilities(), mean.softmax(1).permute(1, 2, 3, 0))


def test_what_was_skipped_says_nothing_and_what_nobody_scored_is_background():
    one, two = scores(seed=1), scores(seed=2)
    one[0] -= 50.0  # were NaN a zero, it would win here
    one[0, :, 0], one[1, :, 0] = torch.nan, torch.nan
    two[0, :, 0] = torch.nan
    sink = SummedScores(SHAPE, "softmax")
    feed(sink, one, 0.4)
    feed(sink, two, 0.2)
    labels, shares = sink.labels(), sink.probabilities()
    assert labels[0, :, 0].tolist() == [0] * 4
    assert shares[:, 0, :, 0].tolist() == [[1.0] * 4, [0.0] * 4, [0.0] * 4]
    assert torch.equal(labels[0, :, 1], two[1, :, 0].argmax(0).int())
    direct = DirectLabels(SHAPE, "softmax")
    feed(direct, one)
    assert direct.labels()[0, :, 0].tolist() == [0] * 4


@pytest.mark.parametrize(("activation", "cut"), [("sigmoid", 0.0), ("softmax", 0.0), ("none", 0.5)])
def test_a_single_channel_says_yes_or_no(activation, cut):
    given = scores(1) / 2 + cut
    direct, summed = DirectLabels(SHAPE, activation), SummedScores(SHAPE, activation)
    feed(direct, given)
    feed(summed, given, 0.3)
    expected = (given[:, 0] > cut).permute(1, 2, 0).int()
    assert 0 < expected.float().mean() < 1
    assert torch.equal(direct.labels(), expected)
    assert torch.equal(summed.labels(), expected)
    shares = given if activation == "none" else given.sigmoid()
    torch.testing.assert_close(summed.probabilities(), shares.permute(1, 2, 3, 0))


def test_half_precision_sums_keep_the_labels(monkeypatch):
    monkeypatch.setattr("nansparse.prediction.scores._WIDE_BYTES", 0)
    given = scores().round(decimals=1)
    sink = SummedScores(SHAPE, "softmax")
    feed(sink, given)
    assert sink.probabilities().dtype == torch.float32
    best = given.topk(2, 1).values
    clear = ((best[:, 0] - best[:, 1]) > 0.05).permute(1, 2, 0)
    assert torch.equal(sink.labels()[clear], given.argmax(1).permute(1, 2, 0).int()[clear])


def test_views_with_other_classes_are_refused():
    sink = SummedScores(SHAPE, "softmax")
    feed(sink, scores(3))
    piece = Piece(lambda volume: volume, (lambda total: total,))
    with pytest.raises(InputError, match="one has 3 classes, another 2.*--class-map"):
        sink.add(piece, torch.zeros(1, 2, *SHAPE))
