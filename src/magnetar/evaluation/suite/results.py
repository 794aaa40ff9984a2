"""What a suite found, section by section: the records that ``suite.json`` holds and pages and tables are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from magnetar.errors import DataError
from magnetar.evaluation.asking import OrderRecord
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.players import PlayerKind
from magnetar.evaluation.suite.plain import from_plain, to_plain
from magnetar.evaluation.summary import SideSummary
from magnetar.types import Prompt

__all__ = [
    "SECTION_KEYS",
    "AttackRecord",
    "BenchmarkRecord",
    "CategoryCost",
    "CategoryWinRate",
    "CostRecord",
    "ExploitabilityRecord",
    "Histogram",
    "MatchupRecord",
    "OrderRecord",
    "PathStep",
    "PolicyRecord",
    "PromptsRecord",
    "SampleRecord",
    "SuiteResult",
    "TournamentRecord",
]


@dataclass(frozen=True)
class PolicyRecord:
    """A policy that took part.

    Attributes:
        spec: What was evaluated; one for each seed of a method.
        kind: What it is: whole weights, a PEFT adapter, an OpenAI-compatible server, or a file of responses.
        seeds: Names of the runs behind it in the order of ``spec``, such as "0", "1"; empty for a single policy.
        responses: Its responses to the suite's prompts in figures, over all seeds; None where it gave none.
        digests: Of each of ``spec`` by its content (`magnetar.evaluation.players.player_digest`), "" for one of which
            nothing is known; empty where that was not written down.
        distance: KL divergence of the policy from the reference on the suite's prompts, in nats a response, with an
            interval over prompts (and seeds); None where it was not asked for, or cannot be had.
        run_distances: The same of each of ``spec``, the mean over prompts; empty without ``distance``.
    """

    spec: tuple[str, ...]
    kind: PlayerKind
    seeds: tuple[str, ...] = ()
    responses: SideSummary | None = None
    digests: tuple[str, ...] = ()
    distance: Estimate | None = None
    run_distances: tuple[float, ...] = ()

    def is_same(self, other: "PolicyRecord") -> bool:
        """Whether both are one policy as far as is known: the same specification, and no other content behind it."""
        return self.spec == other.spec and (not self.digests or not other.digests or self.digests == other.digests)


@dataclass(frozen=True)
class PromptsRecord:
    """What everybody answered.

    Attributes:
        dataset: Where the prompts come from.
        count: How many.
        categories: Prompts by category; empty without categories.
    """

    dataset: str
    count: int
    categories: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CategoryWinRate:
    """A match-up on the prompts of one category.

    Attributes:
        prompts: Of which the judge answered a pair.
        win_rate: In [0, 1], with an interval over prompts (and seeds).
        wins: Share of comparisons with win probability above one half.
        ties: Share of comparisons with win probability one half.
        losses: Share of comparisons with win probability below one half.
    """

    prompts: int
    win_rate: Estimate
    wins: float
    ties: float
    losses: float


@dataclass(frozen=True)
class MatchupRecord:
    """A policy against an opponent under one judge.

    Attributes:
        judge: Name of the judge.
        policy: Name of the policy whose win rate it is.
        opponent: Name of the opponent.
        prompts: Of which the judge answered a pair.
        win_rate: Mean win probability, in [0, 1], both orders where the judge sees one.
        wins: Share of comparisons with win probability above one half.
        ties: Share of comparisons with win probability one half.
        losses: Share of comparisons with win probability below one half.
        comparisons: Pairs of responses that were judged.
        masked: Pairs of responses that the judge left unanswered; no figure counts them.
        length_controlled: Win rate at equal length; None where it was not asked for or cannot be had.
        no_length_control: Why there is none although it was asked for.
        orders: What the order of the two responses does; None for a judge that reads each response by itself.
        categories: The match-up by category.
    """

    judge: str
    policy: str
    opponent: str
    prompts: int
    win_rate: Estimate
    wins: float
    ties: float
    losses: float
    comparisons: int
    masked: int = 0
    length_controlled: Estimate | None = None
    no_length_control: str | None = None
    orders: OrderRecord | None = None
    categories: Mapping[str, CategoryWinRate] = field(default_factory=dict)


@dataclass(frozen=True)
class Histogram:
    """A distribution in bins.

    Attributes:
        edges: N + 1 increasing edges, the same for all policies under one judge.
        counts: N counts; a value on an inner edge is counted above it.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class CategoryCost:
    """Costs on the prompts of one category.

    Attributes:
        prompts: Number of prompts.
        mean_cost: In the cost model's unit.
        share_safe: Share of responses with a cost below zero.
    """

    prompts: int
    mean_cost: Estimate
    share_safe: Estimate


@dataclass(frozen=True)
class CostRecord:
    """A policy's responses under a cost model: higher is worse, below zero is safe.

    Attributes:
        judge: Name of the cost model.
        policy: Name of the policy.
        prompts: Number of prompts.
        mean_cost: Over responses, with an interval over prompts (and seeds).
        share_safe: Share of responses with a cost below zero.
        histogram: The distribution of costs.
        change: Mean cost less the reference's on the same prompts; None for the reference and without one.
        change_safe: Share of safe responses less the reference's likewise.
        categories: The same by category.
    """

    judge: str
    policy: str
    prompts: int
    mean_cost: Estimate
    share_safe: Estimate
    histogram: Histogram
    change: Estimate | None = None
    change_safe: Estimate | None = None
    categories: Mapping[str, CategoryCost] = field(default_factory=dict)


@dataclass(frozen=True)
class PathStep:
    """A policy on a run's way.

    Attributes:
        name: Among the names of the tournament.
        run: Name of the run; there may be several seeds.
        update: Number of updates that had been made; None where that is not known.
        magnet: Whether the magnet moved to this policy.
    """

    name: str
    run: str
    update: int | None
    magnet: bool


@dataclass(frozen=True)
class TournamentRecord:
    """Everybody against everybody: an empirical game.

    Attributes:
        judge: Name of the judge.
        names: N players.
        win_rate: N × N, entry (i, j) is P(i beats j); one half on the diagonal.
        low: Lower ends of the intervals, likewise; None where there is none.
        high: Upper ends.
        nash: Weight of each player in the symmetric equilibrium of the game (its Nash average).
        in_support: Share of resamples of the prompts in which the player is part of the equilibrium.
        path: Checkpoints of runs in the order of training.
        last: For each run the name of its last policy.
        beaten_by: For each run the players whose win rate against its last policy has an interval above one half.
    """

    judge: str
    names: tuple[str, ...]
    win_rate: tuple[tuple[float | None, ...], ...]
    low: tuple[tuple[float | None, ...], ...]
    high: tuple[tuple[float | None, ...], ...]
    nash: Mapping[str, float]
    in_support: Mapping[str, float] = field(default_factory=dict)
    path: tuple[PathStep, ...] = ()
    last: Mapping[str, str] = field(default_factory=dict)
    beaten_by: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackRecord:
    """A policy under one adversarial transformation of the prompts.

    Attributes:
        attack: Name of the attack; "none" for the plain prompts, "any" for the worst case over attacks per prompt.
        policy: Name of the policy.
        judge: Name of the cost model.
        unsafe_share: Share of responses with a cost of zero or more.
        mean_cost: In the cost model's unit.
        change: Unsafe share less that on the plain prompts, paired by prompt; None for the plain prompts.
        prompts: Number of prompts.
        reads: Which request the judge saw: "original" or "attacked".
        categories: Unsafe share by category.
    """

    attack: str
    policy: str
    judge: str
    unsafe_share: Estimate
    mean_cost: Estimate | None = None
    change: Estimate | None = None
    prompts: int | None = None
    reads: str = "original"
    categories: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchmarkRecord:
    """A policy's figure on a task of a general benchmark.

    Attributes:
        policy: Name of the policy.
        task: Name of the task.
        metric: Name of the metric.
        value: The figure.
        standard_error: Its standard error; None where the harness gives none.
        samples: Items of the task; None where the harness does not say.
        settings: Version of the task, number of shots, and the like.
    """

    policy: str
    task: str
    metric: str
    value: float
    standard_error: float | None = None
    samples: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExploitabilityRecord:
    """How often an attacker beats a frozen policy: a lower bound on its exploitability.

    Attributes:
        policy: Name of the policy.
        attacker: "best_of_n", "trained", or "best": the best of all of them, chosen on one half of the prompts and
            measured on the other.
        win_rate: Of the attacker, in [0, 1].
        excess: ``win_rate`` above one half.
        judge: Name of the judge.
        settings: Of the attacker: n, what it starts from, and the like.
        budget: What the attacker spent, by unit: comparisons, tokens, updates.
    """

    policy: str
    attacker: str
    win_rate: Estimate
    excess: Estimate
    judge: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SampleRecord:
    """A prompt with everybody's first response, drawn at random.

    Attributes:
        prompt: Text or chat turns.
        category: None without categories.
        responses: Policy → response; of several seeds the first's.
        costs: Cost model → policy → cost of the response shown.
        win_prob: Judge → policy → opponent → P(the response shown beats the opponent's), None where it was masked.
    """

    prompt: Prompt
    category: str | None
    responses: Mapping[str, str]
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    win_prob: Mapping[str, Mapping[str, Mapping[str, float | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteResult:
    """All that is known of some policies; every section may be empty.

    Attributes:
        policies: Name → policy, in the order of the tables.
        reference: Name of the policy to compare with, such as where training started; None without one.
        judges: Name → specification.
        prompts: What was answered; None where nothing was.
        matchups: Win rates.
        costs: Costs under cost models.
        tournament: Everybody against everybody, one for each judge.
        attacks: Safety under attack.
        benchmarks: General benchmarks.
        exploitability: Lower bounds of the exploitability.
        samples: Responses to read.
        notes: What a reader should know.
        settings: How it was made, plain values; a section that another command added has its own under its name.
        versions: Of packages.
    """

    policies: Mapping[str, PolicyRecord] = field(default_factory=dict)
    reference: str | None = None
    judges: Mapping[str, Any] = field(default_factory=dict)
    prompts: PromptsRecord | None = None
    matchups: Sequence[MatchupRecord] = ()
    costs: Sequence[CostRecord] = ()
    tournament: Sequence[TournamentRecord] = ()
    attacks: Sequence[AttackRecord] = ()
    benchmarks: Sequence[BenchmarkRecord] = ()
    exploitability: Sequence[ExploitabilityRecord] = ()
    samples: Sequence[SampleRecord] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without empty sections; `from_dict` reads them back."""
        return {f.name: to_plain(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "suite") -> "SuiteResult":
        """Read what `to_dict` wrote.

        Args:
            values: Plain values.
            where: What the values are called in messages, such as the file's name.

        Returns:
            The result.

        Raises:
            DataError: A key is unknown or missing, or a value is of another form; the message says where.
        """
        return from_plain(cls, values, where)


SECTION_KEYS: Mapping[str, tuple[str, ...]] = {
    "matchups": ("judge", "policy", "opponent"),
    "costs": ("judge", "policy"),
    "tournament": ("judge",),
    "attacks": ("policy", "judge"),  # "any" is the worst of the attacks beside it, so all are replaced
    "benchmarks": ("policy", "task", "metric", "settings"),
    "exploitability": ("policy", "judge"),  # attackers of a policy are compared with each other, so all are replaced
}
"""What decides which records of a section go: those that share these with one that is measured again."""


def check_names(result: SuiteResult) -> None:
    """Check that records name policies and judges that the result has.

    Raises:
        DataError: A name that is not there.
    """
    for section, keys in SECTION_KEYS.items():
        for record in getattr(result, section):
            for key in {"policy", "opponent"} & set(keys):
                if getattr(record, key) not in result.policies:
                    raise DataError(
                        f"{section} name the {key} {getattr(record, key)!r}, which is not among the policies: "
                        f"{', '.join(result.policies)}"
                    )
            judge = getattr(record, "judge", None)
            if judge is not None and judge not in result.judges:
                raise DataError(
                    f"{section} name the judge {judge!r}, which is not among the judges: {', '.join(result.judges)}"
                )
