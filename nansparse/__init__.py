"""Run trained CNNs faster by skipping the convolutions that do not matter (arXiv 2601.17180)."""

from nansparse import functional
from nansparse.activation import SparseActivation
from nansparse.background import mask_background
from nansparse.engine import registry
from nansparse.errors import (
    BrokenEngineWarning,
    EnableError,
    EngineError,
    InputError,
    NansparseError,
    NothingToDoWarning,
    UnexpectedNaNError,
)
from nansparse.explanation import explain
from nansparse.layers import LayerRecord
from nansparse.memory import keep_memory
from nansparse.policy import Policy
from nansparse.record import RunRecord
from nansparse.session import enable, is_enabled

__version__ = "0.1.0"

__all__ = [
    "BrokenEngineWarning",
    "EnableError",
    "EngineError",
    "InputError",
    "LayerRecord",
    "NansparseError",
    "NothingToDoWarning",
    "Policy",
    "RunRecord",
    "SparseActivation",
    "UnexpectedNaNError",
    "enable",
    "explain",
    "functional",
    "is_enabled",
    "keep_memory",
    "mask_background",
    "registry",
]
