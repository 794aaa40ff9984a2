"""Judges that are trained models: reward, cost, pairwise."""

from magnetar.judges.base import Judge
from magnetar.judges.function import check_temperature
from magnetar.judges.kinds.kind import JudgeKind, JudgeSpec, check_number, check_true_or_false
from magnetar.judges.wrappers import Symmetrized

__all__ = ["KINDS"]

MODEL_OPTIONS = frozenset({"device", "dtype", "max_length", "tokens_per_batch"})


def _check(spec: JudgeSpec) -> None:
    from magnetar.judges.classifier import check_model_source

    if "temperature" in spec.options:
        check_number(spec, "temperature")
        check_temperature(spec.options["temperature"])
    for option in ("max_length", "tokens_per_batch", "first_label"):
        if spec.options.get(option) is not None:
            check_number(spec, option, int)
    check_true_or_false(spec, "symmetrize")
    check_model_source(spec.target or "")
    if spec.kind == "pairwise":
        from magnetar.judges.pairwise import DEFAULT_TEMPLATE, check_template

        check_template(spec.options.get("template", DEFAULT_TEMPLATE))


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


KINDS = {
    "reward": JudgeKind("model", MODEL_OPTIONS | {"temperature"}, "reward:MODEL", _check, _build_scalar),
    "cost": JudgeKind("model", MODEL_OPTIONS | {"temperature"}, "cost:MODEL", _check, _build_scalar),
    "pairwise": JudgeKind(
        "model",
        MODEL_OPTIONS | {"template", "first_label", "symmetrize"},
        "pairwise:MODEL",
        _check,
        _build_pairwise,
    ),
}
