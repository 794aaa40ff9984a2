"""Who takes part in a suite: policies with their seeds, and the policies that training runs kept on their way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magnetar.errors import ConfigError
from magnetar.evaluation.matchup import Responses
from magnetar.evaluation.players import StreamingPlayer, make_player, player_digest, player_kind
from magnetar.evaluation.suite.config import PolicyConfig, SuiteConfig
from magnetar.evaluation.suite.path import read_path
from magnetar.evaluation.suite.results import PathStep, PolicyRecord
from magnetar.evaluation.suite.sides import mean_sides
from magnetar.evaluation.summary import SideSummary

__all__ = ["Entrants", "find_entrants", "policy_record", "policy_records"]


@dataclass(frozen=True)
class Entrants:
    """Who answers.

    Attributes:
        players: Run → player; a policy with one seed is its only run.
        members: Policy, or kept policy of a run → its runs.
        path: Kept policies of training runs, in the order of training.
        playing: Names of those who take part in the tournament.
    """

    players: Mapping[str, StreamingPlayer]
    members: Mapping[str, Sequence[str]]
    path: Sequence[PathStep]
    playing: Sequence[str]


def find_entrants(config: SuiteConfig) -> Entrants:
    """Players of all policies, and of what the runs of a tournament kept.

    Args:
        config: Of the suite.

    Returns:
        Who answers; models are loaded when they do.

    Raises:
        DataError: A run's folder holds no policy, or its records are damaged.
    """
    players: dict[str, StreamingPlayer] = {}
    members: dict[str, list[str]] = {}
    for label, policy in config.policies.items():
        members[label] = policy.run_names(label)
        for name, spec in zip(members[label], policy.specs, strict=True):
            players[name] = make_player(spec, dtype=config.sampling.dtype)
    path: list[PathStep] = []
    playing: list[str] = []
    if config.tournament is not None:
        chosen = config.tournament.policies
        playing = list(config.policies if chosen is None else chosen)
        whole = {_place(policy.specs[0]): label for label, policy in config.policies.items() if not policy.seeds}
        for run, folder in config.tournament.runs.items():
            for kept in read_path(Path(folder)):
                # A policy that takes part under its own name is not asked twice.
                name = whole.get(_place(str(kept.folder))) or f"{run}@{'last' if kept.update is None else kept.update}"
                if name in config.policies and name not in whole.values():
                    raise ConfigError(f"policy {name!r} has the name of a policy that the run {run!r} kept; rename one")
                if name not in members:
                    players[name] = make_player(str(kept.folder), dtype=config.sampling.dtype)
                    members[name] = [name]
                if name not in playing:
                    playing.append(name)
                path.append(PathStep(name, run, kept.update, kept.magnet))
    return Entrants(players, members, tuple(path), tuple(playing))


def policy_record(policy: PolicyConfig, responses: SideSummary | None = None) -> PolicyRecord:
    """What took part.

    Args:
        policy: Its specifications, checked.
        responses: Figures of its responses, where there are any.

    Returns:
        The record.
    """
    return PolicyRecord(
        tuple(spec if isinstance(spec, str) else str(dict(spec)) for spec in policy.specs),
        player_kind(policy.specs[0]),
        policy.seeds,
        responses,
        tuple(player_digest(spec) for spec in policy.specs),
    )


def policy_records(
    config: SuiteConfig, entrants: Entrants, responses: Mapping[str, Responses]
) -> dict[str, PolicyRecord]:
    """What took part, with the figures of its responses.

    Args:
        config: Of the suite.
        entrants: Who answered.
        responses: Run → responses.

    Returns:
        Name → record, policies first, then kept policies of runs.
    """
    records = {
        label: policy_record(policy, mean_sides(label, [responses[name] for name in entrants.members[label]]))
        for label, policy in config.policies.items()
    }
    for step in entrants.path:
        if step.name not in records:
            player: Any = entrants.players[step.name]
            records[step.name] = policy_record(
                PolicyConfig((player.spec,)), mean_sides(step.name, [responses[step.name]])
            )
    return records


def _place(spec: Any) -> str:
    """A folder's place, however it is written; any other specification as it is."""
    path = Path(spec).expanduser() if isinstance(spec, str) else None
    return str(path.resolve()) if path is not None and path.is_dir() else str(spec)
