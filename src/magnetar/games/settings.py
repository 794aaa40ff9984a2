"""From words on a command line to arguments: ``name:key=value,key=value``, checked against a function's signature."""

import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from magnetar.errors import MagnetarError, unknown_name

__all__ = ["plain_settings", "read_settings", "setting_text", "split_spec", "split_specs"]

_MISSING = object()


def split_specs(text: str) -> list[str]:
    """Split a comma-separated list of specs whose own settings are separated by commas too.

    A part that is a plain ``key=value`` belongs to the spec before it: ``"mpo:step_size=2,magnet_every=5,mmd"`` is
    ``["mpo:step_size=2,magnet_every=5", "mmd"]``.

    Args:
        text: Specs.

    Returns:
        Each spec by itself, in order, empty parts left out.
    """
    specs: list[str] = []
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        continues = "=" in part and ":" not in part.split("=", 1)[0]
        if continues and specs and ":" in specs[-1]:
            specs[-1] += f",{part}"
        else:
            specs.append(part)
    return specs


def split_spec(spec: str, error: type[MagnetarError]) -> tuple[str, list[str]]:
    """Split ``name:key=value,key=value`` into its name and its settings.

    Args:
        spec: One spec; the settings may be missing.
        error: Class of the error.

    Returns:
        Name, and the settings as ``key=value`` each.

    Raises:
        MagnetarError: As ``error``: no name.
    """
    name, _, rest = spec.partition(":")
    if not name.strip():
        raise error(f"{spec!r} names nothing, expected NAME or NAME:KEY=VALUE,KEY=VALUE")
    return name.strip(), [part.strip() for part in rest.split(",") if part.strip()]


def plain_settings(function: Callable[..., Any]) -> dict[str, Any]:
    """Settings of a function that a command line can give, with their defaults.

    Args:
        function: Whose parameters to list; annotated.

    Returns:
        Defaults by name, for the parameters that are numbers, words, or switches; `inspect.Parameter.empty` where there
        is no default.
    """
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if _plain_types(hints.get(p.name, str))}


def read_settings(
    kind: str, name: str, function: Callable[..., Any], pairs: Sequence[str], error: type[MagnetarError]
) -> dict[str, Any]:
    """Turn ``key=value`` words into typed arguments of a function.

    Args:
        kind: What is being set up, for the messages: "method", "game".
        name: Its name.
        function: Its constructor; the annotations say what a value may be.
        pairs: Words of the form ``key=value``.
        error: Class of the error.

    Returns:
        Arguments by name.

    Raises:
        MagnetarError: As ``error``: not ``key=value``, a key twice, a key that the function lacks (with the nearest),
            or a value of the wrong kind.
    """
    hints = get_type_hints(function)
    known = plain_settings(function)
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key, text = key.strip().replace("-", "_"), text.strip()
        if not equals or not key or not text:
            raise error(f"{kind} {name!r}: {pair!r} is no setting, expected KEY=VALUE, for instance {_example(known)}")
        if key not in known:
            if not known:
                raise error(f"{kind} {name!r} has no settings (given {pair}); leave it out")
            raise error(f"{kind} {name!r}: {unknown_name('setting', key, known)}")
        if key in found:
            raise error(f"{kind} {name!r}: setting {key!r} is given twice; leave one out")
        value = _convert(text, _plain_types(hints.get(key, str)))
        if value is _MISSING:
            expected = _expectation(_plain_types(hints.get(key, str)))
            raise error(f"{kind} {name!r}: {key} is {text!r}, expected {expected}")
        found[key] = value
    return found


def setting_text(value: Any) -> str:
    """A setting's value as it is written on the command line: ``0.1``, ``kl``, ``true``, ``none``."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _example(known: dict[str, Any]) -> str:
    for key, default in known.items():
        if default is not inspect.Parameter.empty and default is not None:
            return f"{key}={setting_text(default)}"
    return "step_size=0.5"


def _plain_types(hint: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation that have a form in words; empty for one that has none but ``None``."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    plain = tuple(m for m in members if m in (bool, int, float, str, type(None)) or get_origin(m) is Literal)
    return plain if any(m is not type(None) for m in plain) else ()


def _convert(text: str, allowed: tuple[Any, ...]) -> Any:
    # From the narrowest to the widest, so that "3" for `int | float | str` is an integer.
    order: tuple[Any, ...] = (type(None), bool, int, float, str)
    literals = [word for m in allowed if get_origin(m) is Literal for word in get_args(m)]
    for word in literals:
        if text == str(word):
            return word
    for wanted in order:
        if wanted not in allowed:
            continue
        if wanted in (type(None), bool):
            words = {"none": None} if wanted is type(None) else {"true": True, "false": False}
            if text.lower() in words:
                return words[text.lower()]
            continue
        try:
            return wanted(text)
        except ValueError:
            continue
    return _MISSING


def _expectation(allowed: tuple[Any, ...]) -> str:
    words = {bool: "true or false", int: "an integer", float: "a number", str: "a word", type(None): "none"}
    named = [words[m] for m in allowed if m in words]
    named += [repr(word) for m in allowed if get_origin(m) is Literal for word in get_args(m)]
    return " or ".join(named)
