"""Errors that name the value, the expectation and the fix.

Every error that a user can cause derives from `MagnetarError`; the command line prints its message alone, without a
traceback. Programming errors stay ordinary Python exceptions.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "GameError",
    "JudgeError",
    "MagnetarError",
    "MissingDependencyError",
    "ModelError",
    "NonFiniteLossError",
    "unknown_name",
]


class MagnetarError(Exception):
    """Base of every error that the user can mend."""


class ConfigError(MagnetarError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(MagnetarError, ValueError):
    """A dataset that is missing, empty or of the wrong form."""


class GameError(MagnetarError, ValueError):
    """A matrix that is not a preference game."""


class JudgeError(MagnetarError, ValueError):
    """A judge that cannot be built, or an answer that is not a win probability."""


class ModelError(MagnetarError, ValueError):
    """A model or tokenizer that cannot be used as asked."""


class CheckpointError(MagnetarError, OSError):
    """A checkpoint that cannot be written, read or continued."""


class MissingDependencyError(MagnetarError, ImportError):
    """An optional package that the request needs and that is not installed."""


class NonFiniteLossError(MagnetarError, ArithmeticError):
    """The loss or its gradient became infinite or NaN."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that ``name`` is not known, with the nearest known name and the whole list.

    Args:
        kind: What is being named, in the singular: "method", "judge", "field".
        name: What the user wrote.
        known: The names that exist.

    Returns:
        One sentence for an error message.
    """
    names = sorted(known)
    nearest = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {kind} {name!r}; {hint}known: {', '.join(names)}"
