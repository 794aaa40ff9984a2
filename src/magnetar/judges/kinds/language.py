"""Judges that are language models, behind an endpoint or in this process."""

from typing import Any

from magnetar.errors import JudgeError, unknown_name
from magnetar.judges.base import Judge
from magnetar.judges.kinds.kind import JudgeKind, JudgeSpec, check_true_or_false
from magnetar.judges.wrappers import Symmetrized

__all__ = ["KINDS"]

BACKENDS = ("endpoint", "transformers", "vllm")
JUDGE_OPTIONS = frozenset(
    {"template", "defence", "logprobs", "min_choice_mass", "on_unreadable", "max_length", "on_long", "version"}
)
ENDPOINT_OPTIONS = frozenset(
    {
        "base_url",
        "api_key_env",
        "concurrency",
        "timeout_seconds",
        "deadline_seconds",
        "max_retries",
        "max_calls",
        "max_tokens_total",
        "requests_per_minute",
        "temperature",
        "top_logprobs",
        "tokenizer",
        "extra_body",
    }
)
BACKEND_OPTIONS = {
    "endpoint": ENDPOINT_OPTIONS,
    "transformers": frozenset({"device", "dtype", "tokens_per_batch"}),
    "vllm": frozenset({"dtype", "engine_options"}),
}


def _backend_name(spec: JudgeSpec) -> str:
    """Where the model is: as said, else in this process for the embedded one, else behind an endpoint."""
    return spec.options.get("backend") or ("transformers" if spec.target == "demo" else "endpoint")


def _backend_options(spec: JudgeSpec) -> dict[str, Any]:
    return {name: spec.options[name] for name in BACKEND_OPTIONS[_backend_name(spec)] if name in spec.options}


def _judge_options(spec: JudgeSpec) -> dict[str, Any]:
    return {name: spec.options[name] for name in JUDGE_OPTIONS if name in spec.options}


def _check(spec: JudgeSpec) -> None:
    from magnetar.judges.language_model.judge import check_settings
    from magnetar.judges.language_model.templates import load_template

    backend = _backend_name(spec)
    if backend not in BACKENDS:
        raise JudgeError(unknown_name("backend", str(backend), BACKENDS))
    for option in spec.options:
        owners = [name for name in BACKENDS if option in BACKEND_OPTIONS[name]]
        if owners and backend not in owners:
            raise JudgeError(
                f"judge {str(spec)!r}: {option} has no effect with backend {backend!r}, only with "
                f"{' or '.join(map(repr, owners))}; leave it out, or set backend"
            )
    settings = _judge_options(spec)
    settings.pop("version", None)
    settings.pop("defence", None)
    template = load_template(settings.pop("template", "helpfulness"))
    check_settings(**settings)
    if template.verdict_marker is not None and settings.get("logprobs") == "require":
        raise JudgeError(
            f"judge {str(spec)!r}: logprobs = 'require' with a template that has a verdict_marker, whose verdict is "
            "read from the text; leave one of them out"
        )
    for option in ("symmetrize", "defence"):
        check_true_or_false(spec, option)
    if not isinstance(spec.options.get("version", ""), str):
        raise JudgeError(f"judge {str(spec)!r}: version = {spec.options['version']!r}, expected text; put it in quotes")
    _check_backend(spec, backend)


def _check_backend(spec: JudgeSpec, backend: str) -> None:
    options = _backend_options(spec)
    if backend == "endpoint":
        from magnetar.judges.language_model.backends.settings import EndpointSettings, check_endpoint

        check_endpoint(EndpointSettings(**options))
        return
    if backend == "vllm":
        from magnetar.judges.language_model.backends.vllm_backend import check_vllm

        check_vllm()
        if not isinstance(options.get("engine_options", {}), dict):
            raise JudgeError(f"judge {str(spec)!r}: engine_options is not a mapping of arguments of vllm.LLM")
    if spec.target != "demo":
        from magnetar.judges.models.classifier import check_model_source

        check_model_source(spec.target or "")


def _build(spec: JudgeSpec) -> Judge:
    from magnetar.judges.language_model.judge import LanguageModelJudge

    judge = LanguageModelJudge(_build_backend(spec), name=str(spec), **_judge_options(spec))
    return Symmetrized(judge) if spec.options.get("symmetrize", True) else judge


def _build_backend(spec: JudgeSpec) -> Any:
    options, model = _backend_options(spec), spec.target or ""
    backend = _backend_name(spec)
    if backend == "endpoint":
        from magnetar.judges.language_model.backends.endpoint import EndpointBackend
        from magnetar.judges.language_model.backends.settings import EndpointSettings

        return EndpointBackend(model, EndpointSettings(**options))
    if backend == "transformers":
        from magnetar.judges.language_model.backends.transformers_backend import TransformersBackend

        return TransformersBackend.from_pretrained(model, **options)
    from magnetar.judges.language_model.backends.vllm_backend import VllmBackend

    return VllmBackend.from_pretrained(model, **{"dtype": "auto", **options.pop("engine_options", {}), **options})


OPTIONS = JUDGE_OPTIONS.union(*BACKEND_OPTIONS.values()) | {"backend", "symmetrize"}
KINDS = {"llm": JudgeKind("model", OPTIONS, "llm:MODEL", _check, _build)}
