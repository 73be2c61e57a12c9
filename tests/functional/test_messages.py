"""What does not fit is refused by name: the wording is part of the interface."""

from __future__ import annotations

import pytest
import torch

from nansparse.errors import InputError
from nansparse.functional import nan_conv, nan_conv_transpose, nan_max_pool, skipped_windows

X = torch.ones(1, 4, 5, 5)
OPERATIONS = {
    "pool": lambda x: nan_max_pool(x, 2, mode="aggressive"),
    "conv": lambda x: nan_conv(x, torch.ones(2, 4, 3, 3)),
    "transposed": lambda x: nan_conv_transpose(x, torch.ones(4, 2, 3, 3)),
    "skipped": lambda x: skipped_windows(x, 3),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.ones(4, 5, 5), r"\(N, C, H, W\) or \(N, C, D, H, W\), got \(4, 5, 5\)"),
        (torch.ones(1, 4, 5), "got .1, 4, 5."),
        (torch.ones(1, 1, 4, 5, 5, 5), r"\(N, C, H, W\)"),
        (X.numpy(), "got ndarray"),
        (None, "got NoneType"),
        (X.int(), "float16, bfloat16, float32 or float64, got torch.int32"),
        (X.bool(), "got torch.bool"),
        (X.to(torch.complex64), "got torch.complex64"),
    ],
)
def test_inputs_of_another_rank_or_dtype(name, x, words):
    with pytest.raises(InputError, match=words):
        OPERATIONS[name](x)


CONV_CASES = [
    ({"weight": torch.ones(2, 3, 3, 3)}, "expects 3 input channels"),
    ({"weight": torch.ones(2, 4, 3)}, "weight must have 4 axes"),
    ({"weight": torch.ones(2, 4, 3, 3, 3)}, "weight must have 4 axes"),
    ({"weight": torch.ones(2, 4, 3, 3).double()}, "torch.float32 but .* torch.float64"),
    ({"bias": torch.ones(2).half()}, "torch.float32 but .* torch.float16"),
    ({"bias": torch.ones(3)}, r"bias must be \(2,\), got \(3,\)"),
    ({"groups": 2}, "groups=2 expects 8 input channels"),
    ({"groups": 0}, "groups=0"),
    ({"weight": torch.ones(3, 2, 3, 3), "groups": 2}, "equal groups"),
    ({"weight": torch.ones(2, 4, 7, 3)}, r"kernel \(7, 3\) does not fit the padded input grid \(5, 5\)"),
    ({"stride": 0}, "stride must be an integer >= 1, or 2 of them, got 0"),
    ({"stride": (1, 2, 3)}, r"stride .* got \(1, 2, 3\)"),
    ({"stride": 1.5}, "stride must be an integer"),
    ({"stride": (1.5, 1)}, "stride must be an integer"),
    ({"dilation": 0}, "dilation must be"),
    ({"dilation": None}, "dilation must be"),
    ({"padding": -1}, "padding must be an integer >= 0"),
    ({"padding": "circular"}, "'same' or 'valid', got 'circular'"),
    ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
]


@pytest.mark.parametrize(("change", "words"), CONV_CASES)
@pytest.mark.parametrize("has_nan", [False, True])
def test_convolutions(change, words, has_nan):
    x = X.clone()
    x[0, 0, 0, 0] = torch.nan if has_nan else 1.0
    with pytest.raises(InputError, match=words):
        nan_conv(**({"x": x, "weight": torch.ones(2, 4, 3, 3)} | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": torch.ones(3, 2, 3, 3)}, "expects 3 input channels"),
        ({"weight": torch.ones(4, 2, 3)}, "weight must have 4 axes"),
        ({"weight": torch.ones(4, 2, 3, 3).bfloat16()}, "torch.float32 but .* torch.bfloat16"),
        ({"bias": torch.ones(4)}, r"bias must be \(2,\)"),
        ({"bias": torch.ones(2), "groups": 2}, r"bias must be \(4,\)"),
        ({"groups": 3}, "groups=3"),
        ({"padding": 4}, "no output"),
        ({"padding": "same"}, "padding must be an integer"),
        ({"output_padding": 1}, "output_padding must be smaller than stride or dilation, got 1"),
        ({"output_padding": -1}, "output_padding must be an integer >= 0"),
        ({"stride": 0}, "stride must be"),
        ({"dilation": (1, 2, 3)}, "dilation must be"),
    ],
)
def test_transposed_convolutions(change, words):
    with pytest.raises(InputError, match=words):
        nan_conv_transpose(**({"x": X, "weight": torch.ones(4, 2, 3, 3)} | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "brave"}, "mode must be one of 'conservative', 'aggressive', got 'brave'"),
        ({"max_ties": 0}, "max_ties must be an integer >= 1"),
        ({"max_ties": 1.0}, "max_ties must be an integer"),
        ({"epsilon": -1e-9}, "epsilon must be >= 0"),
        ({"epsilon": float("nan")}, "epsilon .* finite"),
        ({"nan_probability": 0.0}, r"nan_probability must be in \(0, 1\]"),
        ({"nan_probability": 1.5}, r"nan_probability must be in \(0, 1\]"),
        ({"nan_probability": 0.5, "generator": 7}, "must be a torch.Generator"),
        ({"nan_probability": 0.5, "mode": "conservative"}, "needs mode='aggressive'"),
        ({"kernel_size": 0}, "kernel_size must be"),
        ({"kernel_size": (2, 2, 2)}, "kernel_size must be"),
        ({"kernel_size": 2.0}, "kernel_size must be"),
        ({"kernel_size": 6}, r"kernel \(6, 6\) does not fit"),
        ({"padding": 2}, "at most half the kernel size"),
        ({"dilation": 0}, "dilation must be"),
        ({"stride": 0}, "stride must be"),
    ],
)
def test_pooling(change, words):
    with pytest.raises(InputError, match=words):
        nan_max_pool(X, **({"kernel_size": 2, "mode": "aggressive"} | change))


@pytest.mark.parametrize("groups", [0, 3, -1])
def test_groups_of_counted_windows(groups):
    with pytest.raises(InputError, match="groups must divide the 4 channels"):
        skipped_windows(X, 3, groups=groups)
