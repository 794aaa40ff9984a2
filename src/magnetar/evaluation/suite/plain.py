"""Records as plain values for JSON, and back, with a message that names the place where a file is not as expected."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from magnetar.errors import DataError, unknown_name

__all__ = ["from_plain", "to_plain"]

Record = TypeVar("Record")


def to_plain(value: Any) -> Any:
    """Dataclasses as dictionaries, sequences as lists; everything else as it is.

    Args:
        value: A record, a mapping, a sequence or a plain value.

    Returns:
        Values that JSON can write, if the leaves are.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(entry) for entry in value]
    return value


def from_plain(kind: type[Record], values: Any, where: str) -> Record:
    """Build a frozen dataclass from what `to_plain` made of one.

    Its fields may be plain, optional, other dataclasses, tuples and sequences of one kind, and mappings from text.

    Args:
        kind: The dataclass.
        values: Plain values.
        where: What they are called in messages.

    Returns:
        The record.

    Raises:
        DataError: A key is unknown or missing, or a value is of another form.
    """
    if not isinstance(values, Mapping):
        raise DataError(f"{where} is a {type(values).__name__}, expected an object with {_keys(kind)}")
    record_fields = {f.name: f for f in fields(cast(Any, kind))}
    hints = get_type_hints(kind)
    for key in values:
        if key not in record_fields:
            raise DataError(f"{where}: {unknown_name('key', str(key), record_fields)}")
    found = {name: _value(hints[name], values[name], f"{where}: {name}") for name in record_fields if name in values}
    for name, f in record_fields.items():
        if name not in found and f.default is MISSING and f.default_factory is MISSING:
            raise DataError(f"{where} has no {name!r}, expected {_keys(kind)}")
    return kind(**found)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _one_of(args, value, where)
    if origin is Literal:
        if value not in args:
            raise DataError(f"{where} is {value!r}, expected one of {', '.join(map(repr, args))}")
        return value
    if origin in (tuple, list, Sequence):
        if not isinstance(value, list | tuple):
            raise DataError(f"{where} is a {type(value).__name__}, expected a list")
        entries = [_value(args[0], entry, f"{where}[{at}]") for at, entry in enumerate(value)]
        return entries if origin is list else tuple(entries)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise DataError(f"{where} is a {type(value).__name__}, expected an object")
        return {str(key): _value(args[1], entry, f"{where}: {key}") for key, entry in value.items()}
    if is_dataclass(hint):
        return from_plain(cast(type[Any], hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise DataError(f"{where} is {value!r}, expected {getattr(hint, '__name__', hint)}")
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first kind that fits; with a single kind beside None its own message."""
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1:
        return _value(others[0], value, where)
    for kind in others:
        try:
            return _value(kind, value, where)
        except DataError:
            continue
    raise DataError(f"{where} is {value!r}, expected one of {', '.join(str(kind) for kind in others)}")


def _keys(kind: Any) -> str:
    return ", ".join(repr(f.name) for f in fields(kind))
