"""Drawn convolutions for the engines: every option, every kind of NaN, and what the definitions say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from nansparse import functional as spec
from nansparse.activation import SparseActivation
from nansparse.convolution import Convolution
from nansparse.windows import convolution_windows, transposed_windows
from tests.functional.drawing import NAN_PATTERNS, seeds, thresholds, values, with_nan

KERNELS = {
    2: ((1, 1), (2, 2), (3, 3), (5, 5), (3, 1), (4, 2)),
    3: ((1, 1, 1), (2, 2, 2), (3, 3, 3), (3, 1, 2)),
}
PATTERNS = (*NAN_PATTERNS, "one site", "mixed")
# 1e-3 skips every window that holds a NaN cell.
engine_thresholds = thresholds | st.just(1e-3)


@dataclass(frozen=True)
class Case:
    """One convolution: its input, its weight, and the keyword arguments of the torch function."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    options: dict[str, Any]
    threshold: float
    transposed: bool

    def expected(self) -> Tensor:
        """What the definitions say."""
        run = spec.nan_conv_transpose if self.transposed else spec.nan_conv
        return run(self.x, self.weight, self.bias, **self.options, threshold=self.threshold)

    def for_engine(self, device: str = "cpu") -> tuple[SparseActivation, Convolution]:
        """What an engine is given."""
        options = {k: v for k, v in self.options.items() if k != "groups"}
        lay_out = transposed_windows if self.transposed else convolution_windows
        windows = lay_out(self.x.shape[2:], self.weight.shape[2:], **options)
        weight, bias = self.weight.to(device), None if self.bias is None else self.bias.to(device)
        convolution = Convolution(weight, bias, windows, self.options["groups"], self.threshold)
        return SparseActivation.from_dense(self.x.to(device)), convolution


@st.composite
def cases(draw: st.DrawFn, *, transposed: bool, grouping: str, dtype: torch.dtype) -> Case:
    """Draw a convolution of one family; any other option varies."""
    rank = draw(st.sampled_from((2, 2, 3)))
    kernel = draw(st.sampled_from(KERNELS[rank]))
    stride = draw(st.tuples(*[st.integers(1, 3)] * rank))
    dilation = draw(st.tuples(*[st.sampled_from((1, 1, 2))] * rank))
    groups, inputs, outputs = draw(_channels(grouping))
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups}
    if transposed:
        # Sizes for which the output is not empty, with anything from no to full cropping.
        options["padding"] = draw(st.tuples(*[st.integers(0, (k - 1) // 2) for k in kernel]))
        room = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
        options["output_padding"] = tuple(draw(st.integers(0, most)) for most in room)
        grid = draw(st.tuples(*[st.integers(1, 5 if rank == 2 else 3)] * rank))
    elif draw(st.booleans()) and draw(st.booleans()):
        options.update(stride=1, padding="same")
        grid = draw(st.tuples(*[st.integers(1, 6)] * rank))
    else:
        options["padding"] = draw(st.tuples(*[st.integers(0, 2)] * rank))
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        least = [max(1, span - 2 * pad) for span, pad in zip(spans, options["padding"], strict=True)]
        grid = tuple(draw(st.integers(low, max(low, 7 if rank == 2 else 4))) for low in least)
    seed = draw(seeds)
    shape = (draw(st.integers(0, 2)), inputs, *grid)
    x = holed(values(seed, shape, dtype), draw(st.sampled_from(PATTERNS)), seed + 1)
    weight_shape = (
        (inputs, outputs // groups, *kernel) if transposed else (outputs, inputs // groups, *kernel)
    )
    weight = values(seed + 2, weight_shape, dtype)
    bias = values(seed + 3, (outputs,), dtype) if draw(st.booleans()) else None
    weight = draw(st.sampled_from((_as_it_is, _strided, _channels_last)))(weight)
    return Case(x, weight, bias, options, draw(engine_thresholds), transposed)


def plain_cases(*, transposed: bool, grouping: str, dtype: torch.dtype) -> list[Case]:
    """List the plainest convolutions of a family: an engine that refuses them all refuses the family."""
    groups = {"one group": 1, "grouped": 2, "depthwise": 4}[grouping]
    found = []
    for kernel, stride in product((*KERNELS[2], *KERNELS[3]), (1, 2)):
        x = with_nan(values(0, (1, 4, *[5] * len(kernel)), dtype), "sites", 1)
        weight = values(2, (4, 4 // groups, *kernel), dtype)
        padding = tuple((k - 1) // 2 for k in kernel)
        options = {"stride": stride, "dilation": 1, "groups": groups, "padding": padding}
        found.append(Case(x, weight, None, options, 0.5, transposed))
    return found


def _as_it_is(weight: Tensor) -> Tensor:
    return weight


def _strided(weight: Tensor) -> Tensor:
    """Every second output of a larger weight."""
    return torch.stack([weight, weight + 1.0], 1).flatten(0, 1)[::2]


def _channels_last(weight: Tensor) -> Tensor:
    return weight.to(memory_format=torch.channels_last if weight.dim() == 4 else torch.channels_last_3d)


def holed(x: Tensor, pattern: str, seed: int) -> Tensor:
    """Mark a tensor: also all but one site, and whole sites beside single cells."""
    if pattern == "one site":
        alone = torch.full_like(x, torch.nan)
        flat, real = alone.flatten(2), x.flatten(2)
        flat[..., seed % flat.shape[2]] = real[..., seed % flat.shape[2]]
        return flat.view_as(x)
    if pattern == "mixed":
        return with_nan(with_nan(x, "sites", seed), "few", seed + 1)
    return with_nan(x, pattern, seed)


def _channels(grouping: str) -> st.SearchStrategy[tuple[int, int, int]]:
    if grouping == "one group":
        return st.tuples(st.just(1), st.sampled_from((1, 2, 7)), st.sampled_from((1, 3, 18)))
    if grouping == "depthwise":
        return st.integers(2, 5).flatmap(
            lambda c: st.tuples(st.just(c), st.just(c), st.sampled_from((c, 2 * c)))
        )
    return st.integers(2, 3).flatmap(
        lambda g: st.tuples(st.just(g), st.sampled_from((2 * g, 3 * g)), st.sampled_from((g, 2 * g)))
    )


def exactly_at(threshold: float, kernel: tuple[int, ...], channels: int, *, whole_sites: bool) -> Tensor:
    """Make one window whose NaN share is `threshold`, beside one with a NaN cell less."""
    cells = math.prod(kernel) * channels
    count = round(threshold * cells)
    x = values(5, (2, channels, *kernel))
    # Order (site, channel) fills whole sites first.
    order = x.movedim(1, -1).contiguous() if whole_sites else x.contiguous()
    flat = order.view(2, -1)
    flat[0, :count] = torch.nan
    flat[1, : count - 1] = torch.nan
    return flat.view(order.shape).movedim(-1, 1).contiguous() if whole_sites else flat.view(x.shape)
