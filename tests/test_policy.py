"""Options are validated once, by name, and then frozen."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from nansparse.errors import InputError, NansparseError
from nansparse.policy import Policy, check_generator, check_threshold, check_tie_rule


def test_the_defaults_are_those_of_the_definitions():
    policy = Policy()
    assert (policy.mode, policy.threshold, policy.epsilon, policy.max_ties) == ("conservative", 0.5, 1e-7, 1)
    assert (policy.nan_probability, policy.engine, policy.output_nan) == (1.0, "auto", 0.0)
    assert policy.generator is None


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "aggressive"},
        {"threshold": 1.0},
        {"threshold": 1},
        {"threshold": 1e-300},
        {"epsilon": 0},
        {"epsilon": 1e-2},
        {"max_ties": 1000},
        {"mode": "aggressive", "nan_probability": 0.5, "generator": torch.Generator()},
        {"generator": torch.Generator()},
        {"engine": "gather"},
        {"output_nan": "keep"},
        {"output_nan": -1},
    ],
)
def test_what_is_supported(options):
    policy = Policy(**options)
    for name, value in options.items():
        assert getattr(policy, name) == value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "Conservative"}, "mode must be one of 'conservative', 'aggressive', got 'Conservative'"),
        ({"mode": None}, "mode must be one of"),
        ({"threshold": 0}, r"threshold must be in \(0, 1\]"),
        ({"threshold": 1.0000001}, r"threshold must be in \(0, 1\]"),
        ({"threshold": -1}, r"threshold must be in \(0, 1\]"),
        ({"threshold": math.nan}, "threshold must be a finite number"),
        ({"threshold": "half"}, "threshold must be a finite number, got 'half'"),
        ({"threshold": True}, "threshold must be a finite number"),
        ({"epsilon": -1e-12}, "epsilon must be >= 0"),
        ({"epsilon": math.inf}, "epsilon must be a finite number"),
        ({"epsilon": None}, "epsilon must be a finite number"),
        ({"max_ties": 0}, "max_ties must be an integer >= 1, got 0"),
        ({"max_ties": 1.0}, "max_ties must be an integer"),
        ({"max_ties": True}, "max_ties must be an integer"),
        ({"nan_probability": 0}, r"nan_probability must be in \(0, 1\]"),
        ({"nan_probability": 2}, r"nan_probability must be in \(0, 1\]"),
        ({"nan_probability": 0.5}, "needs mode='aggressive'"),
        ({"mode": "aggressive", "nan_probability": 0.5}, r"explicit generator=torch\.Generator\(\)"),
        ({"generator": 0}, "generator must be a torch.Generator or None, got int"),
        ({"engine": None}, "engine must be 'auto' or the name of an engine"),
        ({"output_nan": "zero"}, "output_nan"),
        ({"output_nan": math.nan}, "output_nan"),
        ({"output_nan": None}, r"output_nan \(a number or 'keep'\)"),
    ],
)
def test_what_is_not_supported_is_named(options, words):
    with pytest.raises(InputError, match=words):
        Policy(**options)


def test_every_refusal_is_caught_by_one_name_and_as_a_value_error():
    for caught in (NansparseError, ValueError):
        with pytest.raises(caught):
            Policy(mode="brave")


def test_a_policy_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy().threshold = 0.7


def test_a_changed_copy_is_validated_again():
    assert dataclasses.replace(Policy(), threshold=0.7).threshold == 0.7
    with pytest.raises(InputError, match="threshold"):
        dataclasses.replace(Policy(), threshold=7)


def test_it_becomes_json():
    policy = Policy(mode="aggressive", nan_probability=0.5, generator=torch.Generator(), output_nan="keep")
    data = json.loads(json.dumps(policy.to_dict()))
    assert data == {
        "mode": "aggressive",
        "threshold": 0.5,
        "epsilon": 1e-7,
        "max_ties": 1,
        "nan_probability": 0.5,
        "engine": "auto",
        "output_nan": "keep",
        "statistics_nan": "ignore",
        "marking": "always",
    }
    assert Policy(**(data | {"generator": torch.Generator()})).to_dict() == data


def test_the_checks_stand_alone():
    assert check_threshold(1) == 1.0
    assert isinstance(check_threshold(1), float)
    check_tie_rule("aggressive", 1, 0.0, 0.5)
    check_generator(1.0, None)
    with pytest.raises(InputError, match="explicit generator"):
        check_generator(0.5, None)
