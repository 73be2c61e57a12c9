"""How well two classifiers agree: accuracy, and how far their five best classes are the same."""

from __future__ import annotations

from torch import Tensor

from nansparse.errors import InputError

TOP = 5


def compare_scores(scores: Tensor, reference: Tensor, truth: Tensor | None = None) -> dict[str, float]:
    """Compare the class scores of two runs.

    Args:
        scores: Real numbers, (samples, classes).
        reference: The other run's, the same shape.
        truth: Whole numbers, (samples,): the right classes, if known.

    Returns:
        "agreement" (share of the samples given the same best class), "top5_agreement" (mean share of the five
        best classes that both runs have among theirs; all classes where there are fewer than five),
        "max_difference" of the scores, and with truth "accuracy".

    Raises:
        InputError: If the shapes do not fit, or there is no sample.
    """
    if scores.dim() != 2 or scores.shape != reference.shape or not scores.numel():
        raise InputError(
            "scores must be (samples, classes), both alike, "
            f"got {tuple(scores.shape)} and {tuple(reference.shape)}"
        )
    top = min(TOP, scores.shape[1])
    best, expected = (x.topk(top, dim=1).indices for x in (scores, reference))
    shared = (best[:, :, None] == expected[:, None, :]).any(2).float().mean()
    found = {
        "agreement": float((scores.argmax(1) == reference.argmax(1)).float().mean()),
        "top5_agreement": float(shared),
        "max_difference": float((scores - reference).abs().max()),
    }
    if truth is not None:
        if truth.shape != scores.shape[:1]:
            raise InputError(f"expected {scores.shape[0]} true classes, got the shape {tuple(truth.shape)}")
        found["accuracy"] = float((scores.argmax(1) == truth).float().mean())
    return found
