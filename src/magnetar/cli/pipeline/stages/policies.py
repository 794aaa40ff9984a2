"""Which policies a stage measures: those that it names, or all that the pipeline makes."""

from collections.abc import Collection, Mapping
from typing import Any

from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError
from magnetar.pipeline.plan import Product
from magnetar.pipeline.references import Reference, parse_reference

__all__ = ["MISSING", "chosen_policies", "present", "reference_policy"]

MISSING = ("error", "leave_out")
START = "start"


def chosen_policies(work: Work, given: Any, where: str) -> dict[str, list[Any]]:
    """Label → what answers, one for each seed.

    Args:
        work: Of the pipeline.
        given: Label → reference, name of a model, specification, or list of these; None for all that the
            pipeline makes.
        where: For messages.

    Raises:
        ConfigError: There is none, or a reference that no stage makes.
    """
    if given is None:
        given = _all(work)
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"{where}: policies is {given!r}, expected a mapping of label: policy")
    found = {}
    for label, value in given.items():
        specs = value if isinstance(value, list) else [value]
        if not specs:
            raise ConfigError(f"{where}: policies: {label} is an empty list, expected a policy for each seed")
        work.check_form(specs, ("model",), f"{where}: policies: {label}")
        found[str(label)] = [
            one for spec in specs for one in (work.seeds_of(spec) if isinstance(spec, str) else [spec])
        ]
    return found


def reference_policy(work: Work, policies: Mapping[str, list[Any]], given: str | None) -> str | None:
    """Label of the policy that others are compared with: as given, or where self-play started."""
    if given is not None or not policies:
        return given
    start = "sft:model" if "sft" in work.config.stages else work.config.model
    return next((label for label, specs in policies.items() if specs == [start]), None)


def present(policies: Mapping[str, list[Any]], uses: Mapping[Reference, Product], made: Collection[str]) -> Any:
    """Policies whose steps are finished.

    Args:
        policies: As `chosen_policies` gives them.
        uses: References of the step.
        made: Names of references to finished products.

    Returns:
        The policies, and the labels (with their seeds) of those that are left out.
    """
    kept: dict[str, list[Any]] = {}
    left_out = []
    for label, specs in policies.items():
        there = [spec for spec in specs if not _refers(spec, uses) or str(spec) in made]
        left_out += [f"{label} ({spec})" for spec in specs if spec not in there]
        if there:
            kept[label] = there
    return kept, left_out


def _refers(spec: Any, uses: Mapping[Reference, Product]) -> bool:
    reference = parse_reference(spec)
    return reference is not None and reference in uses


def _all(work: Work) -> dict[str, str]:
    """Where self-play started, and every method; of a method with rounds, every round."""
    found = {"SFT": "sft:model"} if "sft:model" in work.products else {START: work.config.model}
    labels = [name.removeprefix("train:") for name in work.groups if "/" not in name]
    for label in labels:
        rounds = [name for name in work.groups if name.startswith(f"train:{label}/round-")]
        if not rounds:
            found[label] = f"train:{label}"
        for name in rounds:
            found[f"{label} round {name.rsplit('-', 1)[1]}"] = name
    return found
