"""One spec names a judge anywhere: a string such as ``reward:MODEL``, or a mapping with options."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from magnetar.errors import JudgeError, unknown_name
from magnetar.judges.base import Judge
from magnetar.judges.kinds import JUDGE_KINDS, JudgeSpec
from magnetar.judges.kinds.python import from_python

__all__ = ["JUDGE_KINDS", "JudgeSpec", "build_judge", "parse_judge_spec"]


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
    known.check(parsed)
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
        return JUDGE_KINDS[spec.kind].build(spec)
    if callable(spec):
        return from_python(spec, None, options)
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
