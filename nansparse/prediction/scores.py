"""Collecting the scores of all pieces into one label a voxel.

A score that is NaN was never computed (its windows were skipped): it says nothing, and the other views or
windows decide. A voxel that nobody scored is background, class 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nansparse.errors import InputError
from nansparse.prediction.pieces import Piece

# Above this, scores are summed in half precision, as FastSurfer does: 79 classes on 256^3 would take 5 GiB.
_WIDE_BYTES = 1 << 30


class DirectLabels:
    """For one view without overlap: the labels of each piece are final, and no scores are kept."""

    def __init__(self, shape: tuple[int, ...], activation: str) -> None:
        """Start with background everywhere.

        Args:
            shape: Of the volume.
            activation: How the network's output is read.
        """
        self._labels = torch.zeros(1, *shape, dtype=torch.int32)
        self._activation = activation

    def add(self, piece: Piece, scores: Tensor) -> None:
        """Take the scores of one piece.

        Args:
            piece: Where they belong.
            scores: (N, C, *spatial), NaN where nothing was computed.
        """
        known = ~scores.isnan().any(1, keepdim=True)
        chosen = _chosen(scores, self._activation)
        labels = torch.where(known, chosen, torch.zeros_like(chosen)).to(torch.int32)
        for place, sample in zip(piece.places, labels, strict=True):
            place(self._labels).copy_(sample)

    def labels(self) -> Tensor:
        """Give the labels.

        Returns:
            int32 (X, Y, Z).
        """
        return self._labels[0]


class SummedScores:
    """For several views or overlapping windows, and where probabilities are wanted: a weighted mean."""

    def __init__(self, shape: tuple[int, ...], activation: str) -> None:
        """Start empty; the number of classes is known with the first scores.

        Args:
            shape: Of the volume.
            activation: How the network's output is read.
        """
        self._shape, self._activation = shape, activation
        self._sum = torch.empty(0)
        self._weight = torch.zeros(1, *shape)

    def add(self, piece: Piece, scores: Tensor) -> None:
        """Take the scores of one piece.

        Args:
            piece: Where they belong.
            scores: (N, C, *spatial), NaN where nothing was computed.

        Raises:
            InputError: If a view has another number of classes than the one before.
        """
        if not self._sum.numel():
            size = scores.shape[1] * self._weight.numel()
            kind = torch.float32 if size * 4 <= _WIDE_BYTES else torch.float16
            self._sum = torch.zeros(scores.shape[1], *self._shape, dtype=kind)
        if scores.shape[1] != len(self._sum):
            raise InputError(
                f"the views do not agree: one has {len(self._sum)} classes, another {scores.shape[1]} "
                "(see --class-map)"
            )
        known = ~scores.isnan().any(1, keepdim=True)
        for place, sample, real in zip(piece.places, scores, known, strict=True):
            place(self._sum).add_((sample * piece.weight).masked_fill_(~real, 0.0))
            place(self._weight).add_(real * piece.weight)

    def labels(self) -> Tensor:
        """Give the class of the highest mean score.

        Returns:
            int32 (X, Y, Z).
        """
        # One channel is compared with a fixed number, so it takes the mean; the best of many does not.
        scores = self._sum / self._weight.clamp(min=1e-12) if len(self._sum) == 1 else self._sum
        chosen = _chosen(scores[None], self._activation)[0]
        return torch.where(self._weight > 0, chosen, torch.zeros_like(chosen))[0].to(torch.int32)

    def probabilities(self) -> Tensor:
        """Turn the mean scores into probabilities.

        Returns:
            float32 (C, X, Y, Z); a voxel that nobody scored is background: 1 in class 0, or 0 in the only
            class.
        """
        out = torch.empty(self._sum.shape, dtype=torch.float32)
        single = len(self._sum) == 1
        for x in range(self._shape[0]):  # a slab at a time: half-precision sums stay small in memory
            weight = self._weight[:, x]
            mean = self._sum[:, x].float() / weight.clamp(min=1e-12)
            out[:, x] = _activated(mean, self._activation).masked_fill_(weight == 0, 0.0)
            if not single:
                out[0, x].masked_fill_(weight[0] == 0, 1.0)
        return out


def _activated(scores: Tensor, activation: str) -> Tensor:
    if activation == "none":
        return scores
    return scores.sigmoid() if activation == "sigmoid" or len(scores) == 1 else scores.softmax(0)


def _chosen(scores: Tensor, activation: str) -> Tensor:
    """Choose a class: the highest score, or for a single channel whether it says yes."""
    if scores.shape[1] > 1:
        return scores.argmax(1, keepdim=True)
    return (scores > (0.5 if activation == "none" else 0.0)).long()
