"""One spec names a judge anywhere: a string such as ``reward:MODEL``, or a mapping with options."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from magnetar.errors import JudgeError, unknown_name
from magnetar.judges.base import Judge
from magnetar.judges.kinds import JUDGE_KINDS, JudgeSpec
from magnetar.judges.kinds.python import from_python
from magnetar.judges.scores import no_scores
from magnetar.judges.wrappers.options import AROUND_OPTIONS, check_wrapper_options, wrap

__all__ = ["JUDGE_KINDS", "JudgeSpec", "build_judge", "check_judge_spec", "parse_judge_spec", "parse_scoring_spec"]

SPEC_FILES = (".yaml", ".yml", ".json")


def parse_judge_spec(spec: str | Mapping[str, Any], **options: Any) -> JudgeSpec:
    """Check a spec without loading a model, so that a mistake is known before any long work.

    Args:
        spec: ``kind`` or ``kind:target``; or a mapping such as
            ``{"kind": "reward", "model": "my/model", "temperature": 2.0}``; or a mapping as JSON text, or the name of a
            ``.yaml``, ``.yml`` or ``.json`` file that holds one.
        **options: Further options; they win over those of a mapping. Every kind takes those of
            `magnetar.judges.wrappers.options`: cache, record, requests_per_minute, questions_per_call, flip_share,
            flip_seed.

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
        if option not in known.options | AROUND_OPTIONS:
            raise JudgeError(unknown_name(f"option of judge {kind!r}", str(option), known.options | AROUND_OPTIONS))
    if known.target is None and target:
        raise JudgeError(f"judge {kind!r} takes nothing behind a colon, got {target!r}; write {known.form}")
    if known.target is not None and not target:
        raise JudgeError(f"judge {kind!r} needs a {known.target}; write {known.form}")
    around = {option: value for option, value in merged.items() if option in AROUND_OPTIONS}
    own = {option: value for option, value in merged.items() if option in known.options}
    parsed = JudgeSpec(kind, target, own, around)
    check_wrapper_options(str(parsed), around)
    known.check(parsed)
    return parsed


def parse_scoring_spec(spec: str | Mapping[str, Any], needed_by: str, **options: Any) -> JudgeSpec:
    """Check a spec whose judge must give each response one score.

    Args:
        spec: See `parse_judge_spec`.
        needed_by: What needs the scores, for the message.
        **options: Further options; see `parse_judge_spec`.

    Returns:
        The checked spec; where only the built judge tells whether it scores, it passes.

    Raises:
        JudgeError: As `parse_judge_spec`, or judges of this kind only compare.
    """
    parsed = parse_judge_spec(spec, **options)
    if JUDGE_KINDS[parsed.kind].scores is False or parsed.around.get("flip_share"):
        raise no_scores(f"{parsed}{' with flip_share' * bool(parsed.around.get('flip_share'))}", needed_by)
    return parsed


def check_judge_spec(spec: object, **options: Any) -> None:
    """Check whatever `build_judge` takes, without building it.

    Args:
        spec: See `build_judge`.
        **options: Further options.

    Raises:
        JudgeError: As `build_judge`, where that can be known.
    """
    if isinstance(spec, JudgeSpec):
        parse_judge_spec(_mapping(spec), **options)
    elif isinstance(spec, str | Mapping):
        parse_judge_spec(spec, **options)
    elif isinstance(spec, Judge):
        _check_built(spec, options)
    elif not callable(spec):
        raise JudgeError(
            f"a {type(spec).__name__} cannot name a judge; give a spec such as 'panel', a mapping with 'kind', a Judge "
            "or a function"
        )


def build_judge(spec: "str | Judge | Callable[..., object] | Mapping[str, Any] | JudgeSpec", **options: Any) -> Judge:
    """Build a judge from whatever names one.

    Args:
        spec: A spec string or mapping (see `parse_judge_spec`), a checked `JudgeSpec`, a judge (returned as it is), or
            a Python function ``(prompts, first, second) -> win probabilities`` or ``(prompts, responses) -> scores``.
        **options: Options of the judge, and of what is put around it; a judge that is built takes the latter only.

    Returns:
        The judge.

    Raises:
        JudgeError: If the spec is wrong or the judge cannot be loaded.
        MissingDependencyError: If the judge needs a package that is not installed.
    """
    if isinstance(spec, str | Mapping | JudgeSpec):
        parsed = parse_judge_spec(_mapping(spec) if isinstance(spec, JudgeSpec) else spec, **options)
        kind = JUDGE_KINDS[parsed.kind]
        outer = {option: value for option, value in parsed.around.items() if option not in kind.options}
        return wrap(kind.build(parsed), outer)
    check_judge_spec(spec, **options)
    if isinstance(spec, Judge):
        return wrap(spec, options)
    around = {option: value for option, value in options.items() if option in AROUND_OPTIONS}
    check_wrapper_options(repr(spec), around)
    return wrap(from_python(spec, None, {key: options[key] for key in options if key not in around}), around)


def _check_built(judge: Judge, options: Mapping[str, Any]) -> None:
    useless = sorted(set(options) - AROUND_OPTIONS)
    if useless:
        raise JudgeError(f"options {useless} have no effect on a judge that is already built: {judge.name!r}")
    check_wrapper_options(judge.name, options)


def _split(spec: str | Mapping[str, Any], options: Mapping[str, Any]) -> tuple[str, str | None, dict[str, Any]]:
    if isinstance(spec, str):
        text = spec.strip()
        if not (text.startswith("{") or (":" not in text and text.endswith(SPEC_FILES))):
            kind, _, target = text.partition(":")
            return kind, target or None, dict(options)
        spec = _written(text)
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


def _written(text: str) -> Mapping[str, Any]:
    """The mapping that a text or a file holds; JSON is YAML too."""
    import yaml

    where = f"the judge {text}"
    try:
        if not text.startswith("{"):
            where = f"the judge's file {text!r}"
            text = Path(text).expanduser().read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise JudgeError(f"{where} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise JudgeError(f"{where} holds a {type(content).__name__}, expected a mapping with 'kind'")
    return content


def _mapping(spec: JudgeSpec) -> dict[str, Any]:
    key = JUDGE_KINDS[spec.kind].target if spec.kind in JUDGE_KINDS else None
    target = {key: spec.target} if key and spec.target else {}
    return {"kind": spec.kind, **target, **spec.options, **spec.around}
