"""What decides the answers of a Python function: its module's text, and the values bound to it."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from magnetar.errors import JudgeError
from magnetar.judges.own_modules import own_imports

__all__ = ["function_identity", "function_name"]


class _UntoldError(Exception):
    """A bound value of which nobody can say whether another one equals it; the message names it."""


def function_identity(function: Callable[..., object], version: str | None) -> dict[str, Any]:
    """Name and version of a function, the text of its module, in which its helpers stand too, and what is bound to it.

    Modules of the user's own that the module imports count with their text too, installed packages do not.

    Bound are the values of a closure, defaults, the arguments of a `functools.partial`, and the attributes of an object
    that is called or whose method is. Global variables that change while the program runs are not seen: for these, as
    for files that the function reads, there is the version.

    Args:
        function: Anything callable.
        version: What the user says the version is.

    Returns:
        Values that JSON can write.

    Raises:
        JudgeError: If there is no version, and the source cannot be read or a bound value cannot be told.
    """
    parts: dict[str, Any] = {"function": function_name(function), "version": version}
    try:
        return parts | {"content": _told(function, "it", ())}
    except _UntoldError as error:
        if version is None:
            raise JudgeError(
                f"{error}, so that the answers of {function_name(function)} cannot be kept; give the judge a "
                "version=..., and another one when the answers change"
            ) from error
        return parts


def function_name(function: Callable[..., object]) -> str:
    """Module and name of a function."""
    function = _innermost(function)
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"


def _innermost(function: Callable[..., object]) -> Callable[..., object]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _told(value: object, name: str, within: tuple[int, ...]) -> Any:
    """A value as JSON can write it, the same for equal values and another for others."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype != object:
            return {"array": hashlib.blake2b(array.tobytes()).hexdigest(), "form": [str(array.dtype), *array.shape]}
    if id(value) in within:
        return {"within": within.index(id(value))}
    within = (*within, id(value))
    if isinstance(value, list | tuple):
        return [_told(item, f"{name}[{at}]", within) for at, item in enumerate(value)]
    if isinstance(value, set | frozenset) and all(isinstance(item, str | int) for item in value):
        return {"set": sorted(map(repr, value))}
    if isinstance(value, Mapping):
        return {"items": [[_told(part, f"{name}[{key!r}]", within) for part in (key, value[key])] for key in value]}
    if isinstance(value, ModuleType | BuiltinFunctionType):
        return {"module": value.__name__}
    if isinstance(value, type):
        return {"class": f"{value.__module__}:{value.__qualname__}", "source": _source(value, name)}
    if isinstance(value, functools.partial):
        bound = {"args": value.args, "keywords": value.keywords}
        return {"partial": _told(value.func, name, within), **_told_all(bound, name, within)}
    if isinstance(value, MethodType):
        return {
            "method": _told(value.__func__, name, within),
            "self": _told(value.__self__, f"{name}.__self__", within),
        }
    if isinstance(value, FunctionType):
        return {"source": _source(value, name), **_told_all(_bound_to(value), name, within), "name": value.__qualname__}
    if callable(value) and hasattr(value, "__dict__"):
        return {"object": _told(type(value), name, within), **_told_all(vars(value), name, within)}
    raise _UntoldError(f"{name} is a {type(value).__name__}, of which cannot be told whether it changed")


def _told_all(values: Mapping[str, object], name: str, within: tuple[int, ...]) -> dict[str, Any]:
    return {f"bound {key}": _told(value, f"{name}.{key}", within) for key, value in values.items()}


def _bound_to(function: FunctionType) -> dict[str, object]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    bound = {name: _content(cell) for name, cell in cells}
    if function.__defaults__ or function.__kwdefaults__:
        bound["defaults"] = [function.__defaults__, function.__kwdefaults__]
    return bound


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has not been given a value yet
        return "not set"


def _source(value: FunctionType | type, name: str) -> str:
    """Digest of the module of a function or class, of what that imports, and of where a function stands in it."""
    try:
        module = inspect.getmodule(value)
        text = inspect.getsource(module or value)
    except (TypeError, OSError) as error:
        raise _UntoldError(f"the source of {name} cannot be read ({error})") from error
    parts = [text, *own_imports(text, getattr(module, "__package__", None) or "").values()]
    if isinstance(value, FunctionType):
        # Lambdas share a name; where it stands in the text tells those of one module apart.
        parts.append(repr(list(value.__code__.co_positions())))
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
