"""Every exception and warning of nansparse, so that callers can catch them by one name."""


class NansparseError(Exception):
    """Base of all errors that nansparse raises on purpose."""


class InputError(NansparseError, ValueError):
    """An argument, a file or a tensor is not what was expected; the message says what was."""


class EnableError(NansparseError, RuntimeError):
    """A model cannot be run under `nansparse.enable`; the message names the remedy."""


class EngineError(NansparseError, RuntimeError):
    """No registered engine can run a convolution; the message lists each engine's reasons."""


class UnexpectedNaNError(NansparseError, FloatingPointError):
    """A layer made NaN out of numbers (bad weights, overflow): that is a fault, not a mask."""


class NothingToDoWarning(UserWarning):
    """A run marked nothing as NaN, so nothing could be skipped."""


class BrokenEngineWarning(UserWarning):
    """An engine could not be loaded or broke during a run; others did its work."""
