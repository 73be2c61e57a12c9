"""The linear layer against the naive loop, and against torch where nothing is NaN."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from nansparse.functional import nan_linear
from tests.functional import drawing, reference

LEADING = ((), (0,), (1,), (4,), (2, 3), (2, 0, 3), (2, 2, 3))


@given(
    leading=st.sampled_from(LEADING),
    features=st.sampled_from((1, 2, 3, 10, 20, 71, 100)),
    outputs=st.integers(1, 4),
    share=st.sampled_from((0.0, 0.1, 0.3, 0.5, 0.8, 1.1)),
    threshold=drawing.thresholds,
    has_bias=st.booleans(),
    dtype=st.sampled_from((torch.float64, torch.float32, torch.float16, torch.bfloat16)),
    seed=drawing.seeds,
)
@settings(max_examples=250)
def test_as_defined(leading, features, outputs, share, threshold, has_bias, dtype, seed):
    x = drawing.values(seed, (*leading, features), dtype)
    x = x.masked_fill(drawing.values(seed + 3, x.shape).erf().abs() < share, torch.nan)
    weight = drawing.values(seed + 1, (outputs, features), dtype) / features**0.5
    bias = drawing.values(seed + 2, (outputs,), dtype) if has_bias else None
    out = nan_linear(x, weight, bias, threshold=threshold)
    expected = reference.linear(
        drawing.as_array(x),
        drawing.as_array(weight),
        None if bias is None else drawing.as_array(bias),
        threshold,
    )
    assert out.dtype == dtype
    drawing.assert_matches(out, expected, (drawing.EXACT | drawing.COARSE)[dtype])


@pytest.mark.parametrize("leading", LEADING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_nan_it_is_torch_bit_for_bit(leading, dtype):
    x, weight, bias = (drawing.values(i, s, dtype) for i, s in enumerate([(*leading, 18), (7, 18), (7,)]))
    assert torch.equal(nan_linear(x, weight, bias), F.linear(x, weight, bias))


def test_each_vector_is_judged_and_filled_by_itself():
    nan = torch.nan
    x = torch.tensor([[1.0, nan, 3.0], [nan, nan, 3.0], [5.0, 5.0, 5.0]])
    out = nan_linear(x, torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(out.flatten(), torch.tensor([2.0, nan, 5.0]), equal_nan=True)


def test_the_input_is_left_as_it_was():
    x = torch.tensor([[1.0, torch.nan, 3.0]])
    nan_linear(x, torch.ones(1, 3))
    assert x.isnan().tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": torch.ones(2, 4)}, "weight must be"),
        ({"weight": torch.ones(3)}, "weight must be"),
        ({"x": torch.tensor(1.0)}, "weight must be"),
        ({"x": torch.ones(2, 3, dtype=torch.float64)}, "one float dtype"),
        ({"x": torch.ones(2, 3, dtype=torch.int64)}, "one float dtype"),
        ({"bias": torch.ones(2, dtype=torch.float64)}, "one float dtype"),
        ({"bias": torch.ones(3)}, "bias must be"),
        ({"threshold": 0.0}, "threshold must be"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    options = {"x": torch.ones(2, 3), "weight": torch.ones(2, 3)} | change
    with pytest.raises(ValueError, match=words):
        nan_linear(**options)
