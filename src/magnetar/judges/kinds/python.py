"""Judges that are Python functions or objects."""

from collections.abc import Callable, Mapping
from typing import Any

from magnetar.errors import JudgeError, unknown_name
from magnetar.judges.base import Judge
from magnetar.judges.function import FunctionJudge, check_temperature, function_judge, import_function
from magnetar.judges.kinds.kind import JudgeKind, JudgeSpec, check_number, check_true_or_false
from magnetar.judges.wrappers import Symmetrized

__all__ = ["KINDS", "from_python"]

OPTIONS = frozenset({"temperature", "symmetrize", "version"})


def _check(spec: JudgeSpec) -> None:
    if "temperature" in spec.options:
        check_number(spec, "temperature")
        check_temperature(spec.options["temperature"])
    check_true_or_false(spec, "symmetrize")
    _build(spec)


def _build(spec: JudgeSpec) -> Judge:
    found = import_function(spec.target or "")
    if isinstance(found, Judge):
        if spec.options:
            raise JudgeError(
                f"options {sorted(spec.options)} have no effect on a judge that is already built: {found.name!r}"
            )
        return found
    if not callable(found) or isinstance(found, type):
        raise JudgeError(f"judge {str(spec)!r} names a {type(found).__name__}, expected a function or a Judge object")
    return from_python(found, str(spec), spec.options)


def from_python(function: Callable[..., object], name: str | None, options: Mapping[str, Any]) -> Judge:
    """Make a judge of a function; one of pairs is asked in both orders unless ``symmetrize`` says otherwise."""
    rest = dict(options)
    symmetrize = rest.pop("symmetrize", None)
    for option in rest:
        if option not in OPTIONS:
            raise JudgeError(unknown_name("option of judge 'python'", option, OPTIONS))
    judge = function_judge(function, name=name, **rest)
    if symmetrize is None:
        # A function of pairs may favour the first answer, and nobody would see it; scores cannot.
        symmetrize = isinstance(judge, FunctionJudge)
    return Symmetrized(judge) if symmetrize else judge


KINDS = {"python": JudgeKind("function", OPTIONS, "python:package.module:function", _check, _build, scores=None)}
