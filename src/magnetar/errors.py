"""Errors that name the value, the expectation and the fix.

Every error that a user can cause derives from `MagnetarError`; the command line prints its message alone, without a
traceback. Programming errors stay ordinary Python exceptions.
"""

import operator
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

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
    "RolloutError",
    "checked_integer",
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


class RolloutError(MagnetarError, RuntimeError):
    """A rollout engine that cannot be started, reached or given the policy's weights."""


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


def checked_integer(
    name: str, value: Any, at_least: int, error: type[MagnetarError] = ConfigError, at_most: int | None = None
) -> int:
    """Return a count or a seed as a Python integer, or say what it should be.

    Args:
        name: Name of the setting, for the message.
        value: What the user gave: an int, or anything that stands for one exactly, such as a NumPy integer. Neither
            2.0 nor True is a number of anything.
        at_least: Smallest value allowed.
        error: Class to raise.
        at_most: Largest value allowed; None for no limit.

    Returns:
        The value.

    Raises:
        MagnetarError: Of the class ``error``: not an integer, or outside the range.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        whole = isinstance(value, float) and value.is_integer() and value >= at_least
        fix = f"for instance {int(value) if whole else at_least}"
        raise error(f"{name} is {value!r}, expected an integer of at least {at_least}; {fix}")
    if number < at_least:
        raise error(f"{name} is {number}, expected at least {at_least}")
    if at_most is not None and number > at_most:
        raise error(f"{name} is {number}, expected at most {at_most}")
    return number
