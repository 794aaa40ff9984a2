"""What a kind of judge is to a spec: its name, its options, how its values are checked and how it is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge

__all__ = ["JudgeKind", "JudgeSpec", "check_number", "check_true_or_false"]


@dataclass(frozen=True)
class JudgeSpec:
    """A checked spec.

    Attributes:
        kind: A key of `JUDGE_KINDS`.
        target: What stands behind the colon: model, file or function; None for a kind without one.
        options: Options of the judge.
        around: Options of what is put around it, see `magnetar.judges.wrappers.options`; one that the kind deals with
            itself stands in both.
    """

    kind: str
    target: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    around: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.kind if self.target is None else f"{self.kind}:{self.target}"


@dataclass(frozen=True)
class JudgeKind:
    """What follows a kind of judge in a spec.

    Attributes:
        target: Key of the part behind the colon in a mapping; None when there is none.
        options: Names of the options; those of what is put around a judge every kind takes, and a kind that names one
            here deals with it itself.
        form: How the spec is written, for messages.
        check: Checks everything that costs no model, so that a mistake is known before any long work.
        build: Builds the judge of a checked spec.
        scores: Whether such a judge gives each response one score; None where only the built judge tells.
    """

    target: str | None
    options: frozenset[str]
    form: str
    check: Callable[[JudgeSpec], None]
    build: Callable[[JudgeSpec], Judge]
    scores: bool | None = False


def check_number(spec: JudgeSpec, option: str, kind: type = float) -> None:
    """Raise a `JudgeError` unless an option is a number of this type; one that is not given or None passes."""
    value = spec.options.get(option)
    if value is None and option not in spec.options:
        return
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise JudgeError(f"judge {str(spec)!r}: {option} = {value!r}, expected a number ({kind.__name__})")


def check_true_or_false(spec: JudgeSpec, option: str) -> None:
    """Raise a `JudgeError` unless an option that is given is true or false."""
    if not isinstance(spec.options.get(option, False), bool):
        raise JudgeError(f"judge {str(spec)!r}: {option} = {spec.options[option]!r}, expected true or false")
