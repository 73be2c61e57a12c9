"""Runs a function the way a model runs inside `enable`, and looks at what came of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import nansparse
from nansparse import NothingToDoWarning, RunRecord
from tests.functional.drawing import values, with_nan


class Wrapped(nn.Module):
    """A model that is one function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def caught(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, RunRecord]:
    """Run a function on inputs with NaN; NaN stays in what it returns."""
    model = Wrapped(function).eval()
    with warnings.catch_warnings():
        # Of no concern here: whether such a run gains anything (tests/session/test_record.py).
        warnings.simplefilter("ignore", NothingToDoWarning)
        with nansparse.enable(model, output_nan="keep", **options) as record:
            out = model(*args)
    return out, record


def taught(record: RunRecord) -> bool:
    """Whether no operation fell back to the dense way."""
    return record.densified == 0


def holed(
    seed: int, shape: tuple[int, ...], pattern: str = "sites", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Make normal numbers with NaN."""
    return with_nan(values(seed, shape, dtype), pattern, seed + 100)


def assert_same(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    """Same shape, dtype, NaN mask and values."""
    assert type(found) is Tensor
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if not expected.is_floating_point():
        assert torch.equal(found, expected)
        return
    assert torch.equal(found.isnan(), expected.isnan())
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
