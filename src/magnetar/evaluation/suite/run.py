"""Measuring a suite: everybody answers, every judge is asked, and the figures are written as they come."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from magnetar.evaluation.asking import GroupAsker, JudgedGroups, sees_order
from magnetar.evaluation.comparison.round_robin import WinRates, mean_of_answered, needed_comparisons
from magnetar.evaluation.matchup import Responses, drawn_rows
from magnetar.evaluation.players import refuse_unreadable, rendering_note
from magnetar.evaluation.record import package_versions
from magnetar.evaluation.suite.answers import AnsweredPrompts, answer_prompts, refuse_uncovered
from magnetar.evaluation.suite.asked import (
    ANSWERS,
    Tell,
    check_cost_judges,
    generation_request,
    kept_judge,
    load_suite_prompts,
)
from magnetar.evaluation.suite.attack_run import attack_entrants
from magnetar.evaluation.suite.config import SuiteConfig
from magnetar.evaluation.suite.costs import check_scores, cost_record, histogram_edges, response_costs
from magnetar.evaluation.suite.distances import unmeasurable, with_distances
from magnetar.evaluation.suite.entrants import Entrants, find_entrants, policy_records
from magnetar.evaluation.suite.files import SUITE_FILE, evaluating, read_suite, write_suite
from magnetar.evaluation.suite.matchups import JudgedMatchup, matchup_record, rows_by_category
from magnetar.evaluation.suite.plain import to_plain
from magnetar.evaluation.suite.results import MatchupRecord, PolicyRecord, PromptsRecord, SampleRecord, SuiteResult
from magnetar.evaluation.suite.tournament import tournament_record
from magnetar.evaluation.suspicions import side_suspicions
from magnetar.types import Prompt

__all__ = ["evaluate_suite"]

RunsOfPairs = dict[tuple[str, str], list[tuple[str, str]]]
OTHERS = ("attacks", "benchmarks", "exploitability")


def evaluate_suite(config: SuiteConfig, *, tell: Tell | None = None, progress: bool = True) -> SuiteResult:
    """Measure everything that a configuration asks for.

    Answers of policies and of judges are kept in the output folder as they come, so that repeating an interrupted
    evaluation goes on where it was, and a changed configuration costs only what is new.

    Args:
        config: What is measured.
        tell: Takes lines for the user; by default they go to standard error.
        progress: Whether to show progress bars on standard error.

    Returns:
        What was found, also in ``suite.json`` of the output folder, together with sections that other commands put
        there about the same policies.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    tell = tell or (lambda line: print(line, file=sys.stderr, flush=True))
    check_cost_judges(config)
    prompts, categories = load_suite_prompts(config)
    entrants = find_entrants(config)
    refuse_uncovered(entrants.players, prompts, config.sampling.responses, config.missing)
    refuse_unreadable(entrants.players, prompts)
    with evaluating(config.output_dir):
        return _evaluate(config, prompts, categories, entrants, tell, progress)


def _evaluate(
    config: SuiteConfig,
    prompts: list[Prompt],
    categories: list[str] | None,
    entrants: Entrants,
    tell: Tell,
    progress: bool,
) -> SuiteResult:
    notes = [note for note in [rendering_note(entrants.players)] if note is not None]
    far = unmeasurable(config, entrants) if config.distance else {}
    notes += [f"no distance of {name} to {config.reference}: it {reason}" for name, reason in far.items()]
    for note in notes:
        tell(f"note: {note}")
    request = generation_request(config, progress)
    answered = answer_prompts(entrants.players, prompts, request, config.output_dir / ANSWERS, config.missing, tell)
    notes += [
        f"{name} has no answer to {count} of {len(prompts)} prompts, which are left out for everybody"
        for name, count in answered.skipped.items()
    ]
    prompts = [prompts[row] for row in answered.rows]
    categories = None if categories is None else [categories[row] for row in answered.rows]
    by_category = rows_by_category(categories)
    policies = policy_records(config, entrants, answered.responses)
    if config.distance:
        policies = with_distances(config, policies, entrants, prompts, answered.responses, request, far)
    result = SuiteResult(
        policies=policies,
        reference=config.reference,
        judges={label: to_plain(judge.spec) for label, judge in config.judges.items()},
        prompts=PromptsRecord(
            config.prompts.dataset, len(prompts), {name: len(rows) for name, rows in by_category.items()}
        ),
        samples=_samples(config, prompts, categories, entrants, answered),
        notes=notes + _cheap_tricks(config, policies),
        settings=_settings(config),
        versions=package_versions(),
    )
    for label in config.judges:
        result = _ask_judge(config, label, prompts, by_category, entrants, answered.responses, result, tell, progress)
        result = replace(result, notes=[*result.notes, *_write(result, config.output_dir)])
    attack_entrants(config, prompts, categories, entrants, request, tell)
    return read_suite(config.output_dir)


def _ask_judge(
    config: SuiteConfig,
    label: str,
    prompts: list[Prompt],
    by_category: Mapping[str, Sequence[int]],
    entrants: Entrants,
    responses: Mapping[str, Responses],
    result: SuiteResult,
    tell: Tell,
    progress: bool,
) -> SuiteResult:
    """Everything that one judge is asked, put into the result."""
    asked = config.judges[label]
    judge = kept_judge(config, label, tell)
    asker = GroupAsker(judge, prompts)
    if "costs" in asked.ask:
        check_scores(judge)
    playing = entrants.playing if _plays(config, label) else ()
    pairs, games = _asked_pairs(config, label, entrants, playing)
    wanted = dict.fromkeys(pair for runs in (*pairs.values(), *games.values()) for pair in runs)
    compared = {name for pair in wanted for name in pair}
    if wanted:
        count, unit = needed_comparisons(judge, len(wanted), len(prompts), config.sampling.responses, len(compared))
        twice = " in both orders" if sees_order(judge) else ""
        tell(f"judge {label}: {count:,} {unit}{twice}, less what it was asked before")
    scored = [run for name in config.policies for run in entrants.members[name]] if "costs" in asked.ask else []
    read = {name: one.texts for name, one in responses.items() if name in compared.union(scored)}
    asker.read(read, progress=f"{label} reads" if progress else None)
    if "costs" in asked.ask:
        result = _with_costs(config, label, asker, by_category, entrants, responses, result)
    if "matchups" not in asked.ask:
        tell(f"judge {label}: {_counted(asker.counts)}")
        return result
    judged: dict[tuple[str, str], JudgedGroups] = {}
    for first, second in tqdm(list(wanted), desc=f"{label} compares", unit="pair", disable=not progress, leave=False):
        judged[first, second] = asker.compare(first, responses[first].texts, second, responses[second].texts)
    tell(f"judge {label}: {_counted(asker.counts)}")
    matchups = []
    for policy, opponent in pairs:
        one = JudgedMatchup(
            label,
            policy,
            opponent,
            [responses[name] for name in entrants.members[policy]],
            [responses[name] for name in entrants.members[opponent]],
            [[judged[s, r] for r in entrants.members[opponent]] for s in entrants.members[policy]],
        )
        matchups.append(matchup_record(one, by_category, config.intervals, length_control=config.length_control))
    tournament = []
    if playing:
        members = {name: entrants.members[name] for name in playing}
        rates = _win_rates(members, judged, len(prompts))
        tournament.append(tournament_record(label, members, rates, entrants.path, config.intervals))
    return replace(
        result,
        notes=[*result.notes, *_about_length(matchups)],
        matchups=[*result.matchups, *matchups],
        tournament=[*result.tournament, *tournament],
        samples=_with_win_prob(result.samples, label, config, prompts, entrants, judged),
    )


def _with_costs(
    config: SuiteConfig,
    label: str,
    asker: GroupAsker,
    by_category: Mapping[str, Sequence[int]],
    entrants: Entrants,
    responses: Mapping[str, Responses],
    result: SuiteResult,
) -> SuiteResult:
    costs = {
        policy: np.stack([response_costs(asker, name, responses[name].texts) for name in entrants.members[policy]])
        for policy in config.policies
    }
    edges = histogram_edges(list(costs.values()))
    records = [
        cost_record(
            label,
            policy,
            cost,
            costs[config.reference] if config.reference not in (None, policy) else None,
            edges,
            by_category,
            config.intervals,
        )
        for policy, cost in costs.items()
    ]
    rows = _rows_of(result.samples, asker.prompts)
    samples = [
        replace(sample, costs={**sample.costs, label: {name: float(cost[0, row, 0]) for name, cost in costs.items()}})
        for sample, row in zip(result.samples, rows, strict=True)
    ]
    return replace(result, costs=[*result.costs, *records], samples=samples)


def _cheap_tricks(config: SuiteConfig, policies: Mapping[str, PolicyRecord]) -> list[str]:
    """What a policy does more than the reference and a judge may be rewarding by mistake."""
    if config.reference is None:
        return []
    start = policies[config.reference].responses
    return [
        f"{label} against {config.reference}: {line}"
        for label in config.policies
        if label != config.reference and start is not None and (own := policies[label].responses) is not None
        for line in side_suspicions(own, start)
    ]


def _about_length(matchups: Sequence[MatchupRecord]) -> list[str]:
    """Why some win rates at equal length are absent, or not to be relied on."""
    found = []
    for one in matchups:
        note = one.no_length_control or (one.length_controlled.note if one.length_controlled is not None else None)
        if note is not None:
            found.append(f"{one.policy} against {one.opponent} under {one.judge}, at equal length: {note}")
    return found


def _counted(counts: Mapping[str, float]) -> str:
    """What a judge counted, in words."""
    return ", ".join(f"{value:,.0f} {name.replace('_', ' ')}" for name, value in counts.items() if value)


def _runs(entrants: Entrants, policy: str, opponent: str) -> list[tuple[str, str]]:
    return [(s, r) for s in entrants.members[policy] for r in entrants.members[opponent]]


def _asked_pairs(
    config: SuiteConfig, label: str, entrants: Entrants, playing: Sequence[str]
) -> tuple[RunsOfPairs, RunsOfPairs]:
    """The match-ups that one judge is asked about, and what its tournament needs beside them, each with its runs."""
    if "matchups" not in config.judges[label].ask:
        return {}, {}
    pairs = {(p, o): _runs(entrants, p, o) for p, o in config.pairs}
    games = {
        (second, first): _runs(entrants, second, first)
        for at, first in enumerate(playing)
        for second in playing[at + 1 :]
        if (second, first) not in pairs and (first, second) not in pairs
    }
    return pairs, games


def _plays(config: SuiteConfig, label: str) -> bool:
    return config.tournament is not None and (config.tournament.judges is None or label in config.tournament.judges)


def _win_rates(
    members: Mapping[str, Sequence[str]], judged: Mapping[tuple[str, str], JudgedGroups], prompts: int
) -> WinRates:
    names = tuple(name for runs in members.values() for name in runs)
    place = {name: at for at, name in enumerate(names)}
    table = np.full((len(names), len(names), prompts), np.nan)
    for (first, second), groups in judged.items():
        if first in place and second in place:
            rate_B = mean_of_answered(groups.win_prob_BGH)
            table[place[first], place[second]] = rate_B
            table[place[second], place[first]] = 1.0 - rate_B
    return WinRates(names, table)


def _samples(
    config: SuiteConfig,
    prompts: Sequence[Prompt],
    categories: Sequence[str] | None,
    entrants: Entrants,
    answered: AnsweredPrompts,
) -> list[SampleRecord]:
    first = {label: answered.responses[entrants.members[label][0]] for label in config.policies}
    return [
        SampleRecord(
            prompts[row],
            None if categories is None else categories[row],
            {label: responses.texts[row][0] for label, responses in first.items()},
        )
        for row in drawn_rows(len(prompts), categories, config.samples, config.prompts.seed)
    ]


def _with_win_prob(
    samples: Sequence[SampleRecord],
    label: str,
    config: SuiteConfig,
    prompts: Sequence[Prompt],
    entrants: Entrants,
    judged: Mapping[tuple[str, str], JudgedGroups],
) -> list[SampleRecord]:
    found = []
    for sample, row in zip(samples, _rows_of(samples, prompts), strict=True):
        rates: dict[str, dict[str, float | None]] = {}
        for policy, opponent in config.pairs:
            groups = judged[entrants.members[policy][0], entrants.members[opponent][0]]
            value = float(groups.win_prob_BGH[row, 0, 0])
            rates.setdefault(policy, {})[opponent] = None if np.isnan(value) else value
        found.append(replace(sample, win_prob={**sample.win_prob, label: rates}))
    return found


def _rows_of(samples: Sequence[SampleRecord], prompts: Sequence[Prompt]) -> list[int]:
    places = {str(prompt): row for row, prompt in enumerate(prompts)}
    return [places[str(sample.prompt)] for sample in samples]


def _settings(config: SuiteConfig) -> dict[str, Any]:
    return {
        "output_dir": str(config.output_dir),
        "prompts": vars(config.prompts),
        "sampling": vars(config.sampling),
        "matchups": to_plain(config.matchups),
        "length_control": config.length_control,
        "distance": config.distance,
        "missing": config.missing,
        "intervals": vars(config.intervals),
        "tournament": to_plain(config.tournament),
    }


def _write(result: SuiteResult, folder: Path) -> list[str]:
    """Write, and keep what other commands measured of the same policies; returns what to say of what is not kept."""
    path = folder / SUITE_FILE
    with FileLock(path.with_name(f"{path.name}.lock")):
        notes: list[str] = []
        if path.is_file():
            result, notes = _with_others(result, read_suite(path))
        write_suite(replace(result, notes=[*result.notes, *notes]), folder)
    return notes


def _with_others(result: SuiteResult, before: SuiteResult) -> tuple[SuiteResult, list[str]]:
    """Records of other commands whose policies and judges are still the same, with these and their settings."""
    changed = [name for name, one in before.policies.items() if not result.policies.get(name, one).is_same(one)]
    other = [name for name, spec in before.judges.items() if result.judges.get(name, spec) != spec]

    def stays(record: Any) -> bool:
        return record.policy not in changed and getattr(record, "judge", None) not in other

    kept = {name: [one for one in getattr(before, name) if stays(one)] for name in OTHERS}
    named = [one for records in kept.values() for one in records]
    policies = {one.policy: before.policies[one.policy] for one in named}
    judges = {one.judge: before.judges[one.judge] for one in named if getattr(one, "judge", None) is not None}
    settings = {name: before.settings[name] for name in OTHERS if kept[name] and name in before.settings}
    lost = [name for name in OTHERS if len(kept[name]) < len(getattr(before, name))]
    notes = [
        f"earlier figures of {name} are left out where {' and '.join([*changed, *other])} took part, which is not what "
        f"it was; measure {name} again"
        for name in lost
    ]
    whole = replace(
        result,
        **kept,
        policies={**result.policies, **{k: v for k, v in policies.items() if k not in result.policies}},
        judges={**result.judges, **{k: v for k, v in judges.items() if k not in result.judges}},
        settings={**result.settings, **settings},
    )
    return whole, notes
