"""Checks and small helpers that the game builders share."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import ConfigError, GameError, MagnetarError, checked_integer, unknown_name

__all__ = [
    "LARGEST_GAME",
    "LARGEST_SEED",
    "check_between",
    "check_choice",
    "check_count",
    "check_kind",
    "number_array",
    "number_or_nan",
    "random_generator",
    "sigmoid",
    "titled",
]

LARGEST_GAME = 20_000
"""Most actions of a ready-made game: its matrix takes 3.2 GB, and a builder holds a few of that size at once."""

LARGEST_SEED = 2**63 - 1
"""Of PyTorch's generators; NumPy's know no limit."""


def check_count(setting: str, value: Any, least: int = 1, most: int = LARGEST_GAME) -> int:
    """Return ``value`` as an integer in ``[least, most]``, or say what it should be.

    Args:
        setting: Name of the setting, for the message.
        value: What the user gave.
        least: Smallest value allowed.
        most: Largest value allowed.

    Returns:
        The value as a Python integer.

    Raises:
        GameError: Not an integer, or outside the range.
    """
    count = checked_integer(setting, value, least, GameError)
    if count > most:
        raise GameError(f"{setting} is {count}, expected at most {most}: a game is a whole matrix in memory")
    return count


def check_between(setting: str, value: float, low: float, high: float, unit: str = "") -> float:
    """Return ``value`` as a float in ``[low, high]``, or say what it should be.

    Args:
        setting: Name of the setting, for the message.
        value: What the user gave.
        low: Smallest value allowed.
        high: Largest value allowed; inf allows every finite number.
        unit: What the number is, for the message.

    Returns:
        The value as a Python float.

    Raises:
        GameError: Not a finite number, or outside the range.
    """
    wanted = f"a finite number of at least {low:g}" if high == float("inf") else f"a number in [{low:g}, {high:g}]"
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not (low <= number <= high and np.isfinite(number)):
        raise GameError(f"{setting} is {value}, expected {wanted}" + (f" ({unit})" if unit else ""))
    return number


def check_kind(setting: str, value: Any, kind: type, instead: str, error: type[MagnetarError] = ConfigError) -> None:
    """Raise unless ``value`` is of the class that it must be.

    Args:
        setting: Name of the setting, for the message.
        value: What the user gave.
        kind: Class expected.
        instead: What to write instead.
        error: Class to raise.

    Raises:
        MagnetarError: Of the class ``error``: something else.
    """
    if not isinstance(value, kind):
        shown = " ".join(repr(value).split())
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise error(f"{setting} is {shown}, expected {kind.__name__}; {instead}")


def number_or_nan(value: Any) -> float:
    """``value`` as a float; NaN, which is in no range, for what is not a number: text, too, even of digits.

    Args:
        value: What the user gave.

    Returns:
        Any float.
    """
    try:
        return float("nan") if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return float("nan")


def number_array(values: Any, what: str) -> NDArray[np.float64]:
    """Own float64 copy of anything array-like that holds real numbers only.

    Args:
        values: What the user gave.
        what: Its name, for the message.

    Returns:
        A new array of the same shape.

    Raises:
        GameError: Text, complex numbers or masked entries, which NumPy would convert or forget; or no array at all.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise GameError(f"{what} is a masked array, expected all of its numbers; choose them with .filled(value)")
    try:
        array = np.asarray(values)
        if array.dtype.kind in "USOc":
            _refuse_entries(np.asarray(values, dtype=object), what)
        return np.array(array, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        if isinstance(error, GameError):
            raise
        raise GameError(f"{what} of type {type(values).__name__} is not an array of numbers: {error}") from error


def _refuse_entries(array: NDArray[Any], what: str) -> None:
    """Name the first entry that is text or complex."""
    for index, entry in np.ndenumerate(array):
        if isinstance(entry, str | bytes | complex | np.complexfloating):
            place = f"{what}[{','.join(map(str, index))}]" if index else what
            fix = "text is not an array of numbers: convert it with float" if isinstance(entry, str | bytes) else ""
            raise GameError(f"{place} is {entry!r:.40}, expected a real number; {fix or 'take its .real part'}")


def check_choice(setting: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of ``choices``, naming the nearest.

    Args:
        setting: Name of the setting, for the message.
        value: What the user gave.
        choices: The values that exist.

    Raises:
        GameError: Another value.
    """
    if value not in choices:
        raise GameError(unknown_name(setting, str(value), choices))


def random_generator(seed: int) -> np.random.Generator:
    """Build NumPy's default generator from a seed.

    Args:
        seed: Integer of at least 0.

    Returns:
        A generator; the same seed gives the same numbers on every machine.

    Raises:
        GameError: A seed that is negative or not an integer.
    """
    return np.random.default_rng(check_count("seed", seed, least=0, most=2**128))


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logistic function in the form that neither overflows nor breaks ``σ(x) + σ(−x) = 1``.

    Args:
        logits: Any shape, any finite values.

    Returns:
        Same shape, in [0, 1].
    """
    return 0.5 * (1.0 + np.tanh(logits / 2.0))


def titled(builder: Callable[..., Any], size: int | str, **settings: Any) -> str:
    """Name a game after its builder and settings; settings at their defaults are left out, a seed never is.

    Args:
        builder: The builder; its signature tells the defaults.
        size: What stands first: the number of actions.
        settings: Settings of this game.

    Returns:
        Such as ``random_game(10, seed=0)``.
    """
    parameters = inspect.signature(builder).parameters
    shown = [f"{key}={value}" for key, value in settings.items() if key == "seed" or parameters[key].default != value]
    return f"{builder.__name__}({', '.join([str(size), *shown])})"
