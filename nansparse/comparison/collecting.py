"""What a way returns, put together for its task: labels, an image, or class scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nansparse.errors import InputError
from nansparse.prediction.networks import Network
from nansparse.prediction.pieces import Piece
from nansparse.prediction.scores import DirectLabels, SummedScores

SEGMENTATION, REGRESSION, CLASSIFICATION = TASKS = ("segmentation", "regression", "classification")


class Collector:
    """Takes the output of every piece.

    A voxel that was never computed is background: label 0 in a segmentation, 0 in an image.
    """

    def __init__(
        self, task: str, activation: str, shape: tuple[int, ...], box: Any, seen: Tensor, *, single: bool
    ) -> None:
        """Start empty.

        Args:
            task: One of `TASKS`.
            activation: How a segmentation's scores are read.
            shape: Of the whole padded volume.
            box: Where in it this way runs; None for everywhere.
            seen: What this way runs on.
            single: Whether no two pieces overlap.
        """
        self.task, self._shape, self._box = task, shape, box
        self._activation = "none" if task == REGRESSION else activation
        self._seen, self._single = tuple(seen.shape), single
        self.classes = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything collected."""
        direct = self.task == SEGMENTATION and self._single
        self._sink: DirectLabels | SummedScores = (DirectLabels if direct else SummedScores)(
            self._seen, self._activation
        )
        self._scores: list[Tensor] = []
        self._visited = torch.zeros(1, *self._seen, dtype=torch.bool)

    def add(
        self, piece: Piece, network: Network, x: Tensor, device: torch.device, channels_last: bool
    ) -> None:
        """Run a network on a piece and keep what it returns.

        Args:
            piece: Where the piece lies.
            network: The network.
            x: (N, C, *spatial).
            device: Where it computes.
            channels_last: The layout of its input.

        Raises:
            InputError: If the network's output does not fit the task.
        """
        if self.task == CLASSIFICATION:
            layout = torch.channels_last_3d if x.dim() == 5 else torch.channels_last
            out = network.model(
                x.to(device, memory_format=layout if channels_last else torch.contiguous_format)
            )
            if not isinstance(out, Tensor) or out.dim() != 2:
                got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
                raise InputError(
                    f"a classification needs scores (samples, classes), the model returned {got}"
                )
            self._scores.append(out.float().cpu().nan_to_num(0.0))
            return
        scores = network.scores(x, device, channels_last=channels_last)
        if self.task == REGRESSION and scores.shape[1] != 1:
            raise InputError(f"a regression needs one output channel, the model has {scores.shape[1]}")
        self.classes = scores.shape[1]
        self._sink.add(piece, scores)
        for place in piece.places:
            place(self._visited).fill_(True)

    def result(self) -> Tensor:
        """Give what was put together.

        Returns:
            int32 labels or float32 values, (X, Y, Z) of the whole padded volume; or scores (samples,
            classes).
        """
        if self.task == CLASSIFICATION:
            return torch.cat(self._scores)
        if isinstance(self._sink, SummedScores) and self.task == REGRESSION:
            inner = self._sink.probabilities()[0]
        else:
            inner = self._sink.labels()
        return self._placed(inner)

    def visited(self) -> Tensor:
        """Say which voxels were looked at.

        Returns:
            Bool (X, Y, Z) of the whole padded volume.
        """
        return self._placed(self._visited[0])

    def _placed(self, inner: Tensor) -> Tensor:
        """Put the box's result in its place; around it is background."""
        if self._box is None:
            return inner
        whole = torch.zeros(self._shape, dtype=inner.dtype)
        size = whole[self._box].shape
        whole[self._box] = inner[tuple(slice(length) for length in size)]
        return whole
