"""Judges that are trained models: reward, cost, pairwise, general."""

from pathlib import Path

from magnetar.errors import JudgeError, unknown_name
from magnetar.judges.base import Judge
from magnetar.judges.function import check_temperature
from magnetar.judges.kinds.kind import JudgeKind, JudgeSpec, check_number, check_true_or_false
from magnetar.judges.models.card import card_of_kind, read_card
from magnetar.judges.wrappers import Symmetrized

__all__ = ["KINDS"]

READING = frozenset({"device", "dtype", "max_length", "on_long", "share_beginnings", "tokens_per_batch"})
DTYPES = ("auto", "bfloat16", "float16", "float32", "float64")


def _check(spec: JudgeSpec) -> None:
    from magnetar.judges.models.classifier import ON_LONG, check_model_source

    if "temperature" in spec.options:
        check_number(spec, "temperature")
        check_temperature(spec.options["temperature"])
    for option in ("max_length", "tokens_per_batch", "first_label"):
        if spec.options.get(option) is not None:
            check_number(spec, option, int)
    for option in ("symmetrize", "normalize", "share_beginnings"):
        check_true_or_false(spec, option)
    for option, known in (("on_long", ON_LONG), ("dtype", DTYPES)):
        if spec.options.get(option, known[0]) not in known:
            raise JudgeError(f"judge {str(spec)!r}: {unknown_name(option, str(spec.options[option]), known)}")
    check_model_source(spec.target or "")
    if Path(spec.target or "").expanduser().is_dir():
        card_of_kind(spec.target or "", spec.kind)  # a card on the Hub is read with the model
    if spec.options.get("template") is not None:
        from magnetar.judges.models.pairwise import check_template

        check_template(spec.options["template"])


def _build_scalar(spec: JudgeSpec) -> Judge:
    from magnetar.judges.models.scalar import RewardModelJudge

    return RewardModelJudge.from_pretrained(
        spec.target or "", lower_is_better=spec.kind == "cost", name=str(spec), **spec.options
    )


def _build_general(spec: JudgeSpec) -> Judge:
    from magnetar.judges.models.general import GeneralPreferenceJudge

    return GeneralPreferenceJudge.from_pretrained(spec.target or "", name=str(spec), **spec.options)


def _build_pairwise(spec: JudgeSpec) -> Judge:
    from magnetar.judges.models.pairwise import PairwiseModelJudge

    options = dict(spec.options)
    symmetrize = options.pop("symmetrize", True)
    judge = PairwiseModelJudge.from_pretrained(spec.target or "", name=str(spec), **options)
    return Symmetrized(judge) if symmetrize else judge


def _of_card(spec: JudgeSpec) -> JudgeSpec:
    """The spec of the kind that a model's card names."""
    from magnetar.judges.models.classifier import check_model_source

    check_model_source(spec.target or "")
    card = read_card(spec.target or "")
    if card is None:
        raise JudgeError(
            f"judge {str(spec)!r} has no card that says of which kind it is; write reward:MODEL, cost:MODEL, "
            "pairwise:MODEL or general:MODEL"
        )
    for option in spec.options:
        if option not in KINDS[card.kind].options:
            raise JudgeError(unknown_name(f"option of judge {card.kind!r}", option, KINDS[card.kind].options))
    return JudgeSpec(card.kind, spec.target, spec.options, spec.around)


def _check_any(spec: JudgeSpec) -> None:
    _check(_of_card(spec))


def _build_any(spec: JudgeSpec) -> Judge:
    known = _of_card(spec)
    return KINDS[known.kind].build(known)


SCALAR = READING | {"temperature"}
GENERAL = SCALAR | {"normalize"}
PAIRWISE = READING | {"template", "first_label", "symmetrize"}

KINDS = {
    "reward": JudgeKind("model", SCALAR, "reward:MODEL", _check, _build_scalar, scores=True),
    "cost": JudgeKind("model", SCALAR, "cost:MODEL", _check, _build_scalar, scores=True),
    "general": JudgeKind("model", GENERAL, "general:MODEL", _check, _build_general),
    "pairwise": JudgeKind("model", PAIRWISE, "pairwise:MODEL", _check, _build_pairwise),
    "model": JudgeKind("model", GENERAL | PAIRWISE, "model:MODEL", _check_any, _build_any, scores=None),
}
