"""Policies under attack, alone or behind everything else that a suite measures; figures are merged as they come."""

import sys
from collections.abc import Sequence
from dataclasses import asdict

from magnetar.evaluation.players import GenerationRequest, rendering_note
from magnetar.evaluation.suite.answers import refuse_uncovered
from magnetar.evaluation.suite.asked import (
    ANSWERS,
    Tell,
    check_cost_judges,
    generation_request,
    kept_judge,
    load_suite_prompts,
)
from magnetar.evaluation.suite.attacks import attacked_suite
from magnetar.evaluation.suite.config import SuiteConfig
from magnetar.evaluation.suite.entrants import Entrants, find_entrants, policy_record
from magnetar.evaluation.suite.files import evaluating, merge_section, read_suite, refuse_others
from magnetar.evaluation.suite.plain import to_plain
from magnetar.evaluation.suite.results import SuiteResult
from magnetar.types import Prompt

__all__ = ["attack_entrants", "attack_policies"]


def attack_policies(config: SuiteConfig, *, tell: Tell | None = None, progress: bool = True) -> SuiteResult:
    """Measure the attacks of a configuration, and nothing else of it.

    What the output folder holds of other measurements stays; a policy or a judge of the same name must be the same.

    Args:
        config: With attacks.
        tell: Takes lines for the user; by default they go to standard error.
        progress: Whether to show progress bars on standard error.

    Returns:
        What the file holds now.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    tell = tell or (lambda line: print(line, file=sys.stderr, flush=True))
    check_cost_judges(config)
    prompts, categories = load_suite_prompts(config)
    entrants = find_entrants(config)
    refuse_uncovered(entrants.players, prompts, config.sampling.responses, config.missing)
    policies = {label: policy_record(policy) for label, policy in config.policies.items()}
    refuse_others(config.output_dir, policies, {label: to_plain(one.spec) for label, one in config.judges.items()})
    with evaluating(config.output_dir):
        note = rendering_note(entrants.players)
        if note is not None:
            tell(f"note: {note}")
        attack_entrants(config, prompts, categories, entrants, generation_request(config, progress), tell)
        return read_suite(config.output_dir)


def attack_entrants(
    config: SuiteConfig,
    prompts: Sequence[Prompt],
    categories: Sequence[str] | None,
    entrants: Entrants,
    request: GenerationRequest,
    tell: Tell,
) -> None:
    """Put what the policies do under attack into the file, judge by judge.

    Args:
        config: Nothing is done where it has no attacks.
        prompts: Plain prompts, all different.
        categories: One label for each, or None.
        entrants: Who answers.
        request: How they are sampled.
        tell: Takes lines for the user.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    if config.attacks is None:
        return
    members = {policy: entrants.members[policy] for policy in config.policies}
    attacked = attacked_suite(
        config.attacks,
        config.intervals,
        prompts,
        categories,
        members,
        entrants.players,
        request,
        config.output_dir / ANSWERS,
        config.missing,
        tell,
    )
    how = {"prompts": asdict(config.prompts), "sampling": asdict(config.sampling)}
    for label, asked in config.judges.items():
        if "costs" in asked.ask:
            merge_section(
                config.output_dir,
                "attacks",
                attacked.records(label, kept_judge(config, label, tell)),
                policies={name: policy_record(policy) for name, policy in config.policies.items()},
                judges={label: to_plain(asked.spec)},
                settings={**to_plain(config.attacks), **to_plain(how)},
            )
