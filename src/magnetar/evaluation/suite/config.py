"""What a suite is to measure: policies, judges, prompts, and who is asked what; checked before anything is loaded."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from magnetar.errors import ConfigError, MagnetarError, checked_integer, unknown_name
from magnetar.evaluation.comparison.tables import IntervalSettings
from magnetar.evaluation.players import check_player_spec, player_kind
from magnetar.evaluation.suite.attack_config import AttacksConfig, read_attacks
from magnetar.judges import JUDGE_KINDS, parse_judge_spec
from magnetar.rollout import SamplingParams

__all__ = [
    "KEYS",
    "JudgeConfig",
    "PolicyConfig",
    "PromptsConfig",
    "SamplingConfig",
    "SuiteConfig",
    "TournamentConfig",
]

Question = Literal["matchups", "costs"]
QUESTIONS = ("matchups", "costs")
MATCHUPS = ("against_reference", "all", "none")
CATEGORIES = ("auto", "required", "none")
MISSING_ANSWERS = ("error", "skip")
SEED_IN_NAME = re.compile(r"seed[-_ ]?(\d+)")
Section = TypeVar("Section")


@dataclass(frozen=True)
class PolicyConfig:
    """A policy, or the runs of one method with several seeds.

    Attributes:
        specs: What answers; one for each seed.
        seeds: Names of the seeds; empty for a single policy.
    """

    specs: tuple[Any, ...]
    seeds: tuple[str, ...] = ()

    def run_names(self, label: str) -> list[str]:
        """What the runs are called: the label, and the seed where there are several."""
        return [f"{label}, seed {seed}" for seed in self.seeds] or [label]


@dataclass(frozen=True)
class JudgeConfig:
    """A judge and what it is asked.

    Attributes:
        spec: As `magnetar.judges.build_judge` takes it.
        ask: "matchups" (who beats whom), "costs" (a cost for each response), or both. A cost model is asked for costs
            and any other judge for match-ups unless this says otherwise; the cost of another judge that scores is the
            negative of its score.
    """

    spec: Any
    ask: tuple[Question, ...]


@dataclass(frozen=True)
class PromptsConfig:
    """What everybody answers.

    Attributes:
        dataset: "demo", a file, a folder or a Hub id.
        split: Its split; "test" of the embedded prompts by default.
        limit: So many prompts, drawn with ``seed``; all by default.
        seed: Of the draw.
        categories: "auto" (where the dataset has the column ``category``), "required", "none", or names of those that
            are wanted alone.
    """

    dataset: str
    split: str | None = None
    limit: int | None = None
    seed: int = 0
    categories: str | tuple[str, ...] = "auto"


@dataclass(frozen=True)
class SamplingConfig:
    """How everybody is sampled.

    Attributes:
        max_new_tokens: Longest response in tokens.
        temperature: Positive.
        top_p: Nucleus; 1 for none.
        top_k: Among the likeliest; 0 for all.
        responses: To each prompt.
        seed: Of the sampling; players have seeds of their own, made from it and their names.
        batch_size: Prompts at a time; changes speed and memory only.
        dtype: Precision of the weights.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    responses: int = 1
    seed: int = 0
    batch_size: int = 16
    dtype: str = "float32"

    @property
    def params(self) -> SamplingParams:
        """What an engine takes."""
        return SamplingParams(self.max_new_tokens, float(self.temperature), float(self.top_p), self.top_k)


@dataclass(frozen=True)
class TournamentConfig:
    """Who plays whom in the empirical game.

    Attributes:
        policies: Labels; all policies by default.
        runs: Label → output folder of a training run, whose kept policies take part as "label@update".
        judges: Labels of the judges; all that are asked for match-ups by default.
    """

    policies: tuple[str, ...] | None = None
    runs: Mapping[str, str] = field(default_factory=dict)
    judges: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SuiteConfig:
    """Policies × judges × prompts, and how they are measured.

    Attributes:
        output_dir: Where answers, figures and the page go.
        policies: Label → policy, in the order of the tables.
        judges: Label → judge.
        prompts: What everybody answers.
        reference: Label of the policy to compare with; None for none.
        sampling: How everybody is sampled.
        matchups: "against_reference", "all", "none", or pairs of labels. By default against the reference where there
            is one, otherwise all.
        tournament: The empirical game; None for none.
        length_control: Whether win rates at equal length are wanted too.
        distance: Whether the KL divergence of each policy from the reference is wanted, on the policy's responses; a
            number for so many of the prompts, drawn at random.
        missing: What to do about prompts without an answer: "error", or "skip" them for everybody.
        samples: Prompts with everybody's responses to write down.
        intervals: Bootstrap resamples, coverage and seed of intervals.
        attacks: Attacks on the prompts under which the cost models judge the policies; None for none.
    """

    output_dir: Path
    policies: Mapping[str, PolicyConfig]
    judges: Mapping[str, JudgeConfig]
    prompts: PromptsConfig
    reference: str | None = None
    sampling: SamplingConfig = SamplingConfig()
    matchups: str | tuple[tuple[str, str], ...] = "all"
    tournament: TournamentConfig | None = None
    length_control: bool = True
    distance: bool | int = False
    missing: str = "error"
    samples: int = 24
    intervals: IntervalSettings = field(default_factory=IntervalSettings)
    attacks: AttacksConfig | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SuiteConfig":
        """Read a configuration as YAML or JSON gives it.

        Args:
            values: Keys as the attributes; ``policies`` maps a label to a spec or a list of specs (one for each seed),
                ``judges`` a label to a spec or to ``{judge: spec, ask: [matchups, costs]}``, ``prompts`` may be the
                dataset alone, ``tournament`` may be true.

        Returns:
            The configuration, checked as far as that goes without loading a model.

        Raises:
            ConfigError: A key or a value cannot be; the message names it.
            MagnetarError: A policy or a judge that cannot be, likewise.
        """
        for key in values:
            if key not in KEYS:
                raise ConfigError(unknown_name("key", str(key), KEYS))
        for key in ("output_dir", "policies", "judges", "prompts"):
            if not values.get(key):
                raise ConfigError(f"{key} is missing; expected output_dir, policies, judges and prompts")
        policies = _policies(values["policies"])
        judges = _judges(values["judges"])
        reference = values.get("reference")
        if reference is not None and reference not in policies:
            raise ConfigError(f"reference: {unknown_name('policy', str(reference), policies)}")
        prompts = values["prompts"]
        config = cls(
            output_dir=Path(_text("output_dir", values["output_dir"])),
            policies=policies,
            judges=judges,
            prompts=_section(PromptsConfig, "prompts", {"dataset": prompts} if isinstance(prompts, str) else prompts),
            reference=reference,
            sampling=_section(SamplingConfig, "sampling", values.get("sampling") or {}),
            matchups=_matchups(values.get("matchups"), policies, reference),
            tournament=_tournament(values.get("tournament"), policies, judges),
            length_control=_flag("length_control", values.get("length_control", True)),
            distance=_distance(values.get("distance", False)),
            missing=_choice("missing", values.get("missing", "error"), MISSING_ANSWERS),
            samples=checked_integer("samples", values.get("samples", 24), 0),
            intervals=_section(IntervalSettings, "intervals", values.get("intervals") or {}),
            attacks=read_attacks(
                values.get("attacks"),
                {label: [player_kind(spec) for spec in policy.specs] for label, policy in policies.items()},
                any("costs" in judge.ask for judge in judges.values()),
            ),
        )
        _check_numbers(config)
        if config.distance:
            _check_distance(config)
        return config

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Labels of each match-up: policy and opponent."""
        if not isinstance(self.matchups, str):
            return list(self.matchups)
        labels = list(self.policies)
        if self.matchups == "none":
            return []
        if self.matchups == "against_reference":
            return [(label, str(self.reference)) for label in labels if label != self.reference]
        # The reference is the opponent of all; otherwise who comes later is the policy, as a newer model would be.
        labels.sort(key=lambda label: label != self.reference)
        return [(second, first) for at, first in enumerate(labels) for second in labels[at + 1 :]]


KEYS = tuple(f.name for f in fields(SuiteConfig))
"""Keys of a configuration file."""


def _policies(given: Any) -> dict[str, PolicyConfig]:
    policies = {}
    for label, value in _mapping("policies", given).items():
        specs = value if isinstance(value, list) else [value]
        if not specs:
            raise ConfigError(f"policies: {label} is an empty list, expected a specification for each seed")
        for spec in specs:
            try:
                if not isinstance(spec, str | Mapping):
                    raise ConfigError(f"{spec!r} is no specification, expected text or a mapping")
                check_player_spec(spec)
            except MagnetarError as error:
                raise type(error)(f"policies: {label}: {error}") from error
        policies[label] = PolicyConfig(tuple(specs), _seed_names(specs) if len(specs) > 1 else ())
    return policies


def _seed_names(specs: Sequence[Any]) -> tuple[str, ...]:
    """Seeds as the specs name them ("…-seed3"), where each names another one; otherwise numbers."""
    found = [SEED_IN_NAME.findall(spec) if isinstance(spec, str) else [] for spec in specs]
    names = [seeds[-1] for seeds in found if seeds]
    return tuple(names) if len(set(names)) == len(specs) else tuple(str(at) for at in range(len(specs)))


def _judges(given: Any) -> dict[str, JudgeConfig]:
    judges = {}
    for label, value in _mapping("judges", given).items():
        wrapped = isinstance(value, Mapping) and "judge" in value
        spec = value["judge"] if wrapped else value
        for key in value if wrapped else ():
            if key not in ("judge", "ask"):
                raise ConfigError(f"judges: {label}: {unknown_name('key', str(key), ('judge', 'ask'))}")
        try:
            parsed = parse_judge_spec(spec)
        except MagnetarError as error:
            raise type(error)(f"judges: {label}: {error}") from error
        ask = value.get("ask") if wrapped else None
        ask = [ask] if isinstance(ask, str) else ask
        if ask is None:
            ask = ["costs" if _is_cost_model(parsed) else "matchups"]
        for question in ask if isinstance(ask, list) and ask else [ask]:
            if question not in QUESTIONS:
                raise ConfigError(f"judges: {label}: ask: {unknown_name('question', str(question), QUESTIONS)}")
        if "costs" in ask and JUDGE_KINDS[parsed.kind].scores is False:
            raise ConfigError(
                f"judges: {label}: {parsed} only says which of two responses is better, so it has no costs; leave "
                "'costs' out, or name a judge that scores (cost:MODEL, reward:MODEL)"
            )
        judges[label] = JudgeConfig(spec, cast(tuple[Question, ...], tuple(ask)))
    return judges


def _is_cost_model(parsed: Any) -> bool:
    if parsed.kind == "model":
        from magnetar.judges.models.card import read_card

        card = read_card(parsed.target or "")
        return card is not None and card.kind == "cost"
    return parsed.kind == "cost"


def _matchups(given: Any, policies: Mapping[str, Any], reference: str | None) -> str | tuple[tuple[str, str], ...]:
    if given is None:
        return "all" if reference is None else "against_reference"
    if isinstance(given, str):
        _choice("matchups", given, MATCHUPS)
        if given == "against_reference" and reference is None:
            raise ConfigError("matchups is 'against_reference', but there is no reference; name one with reference")
        return given
    if not isinstance(given, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in given):
        raise ConfigError(f"matchups is {given!r}, expected {', '.join(MATCHUPS)} or a list of [policy, opponent]")
    for pair in given:
        for label in pair:
            if label not in policies:
                raise ConfigError(f"matchups: {unknown_name('policy', str(label), policies)}")
        if pair[0] == pair[1]:
            raise ConfigError(f"matchups: {pair[0]!r} against itself, expected two different policies")
    return tuple((first, second) for first, second in given)


def _tournament(
    given: Any, policies: Mapping[str, PolicyConfig], judges: Mapping[str, JudgeConfig]
) -> TournamentConfig | None:
    if given is None or given is False:
        return None
    section = TournamentConfig() if given is True else _section(TournamentConfig, "tournament", given)
    comparing = [label for label, judge in judges.items() if "matchups" in judge.ask]
    for kind, named, known in (("policy", section.policies, policies), ("judge", section.judges, comparing)):
        for label in named or ():
            if label not in known:
                raise ConfigError(f"tournament: {unknown_name(kind, str(label), known)}")
    runs = _mapping("tournament: runs", section.runs) if section.runs else {}
    for label, folder in runs.items():
        if not Path(_text(f"tournament: runs: {label}", folder)).is_dir():
            raise ConfigError(f"tournament: runs: {label}: no folder {folder!r}; expected the output of a training run")
    players = len(policies if section.policies is None else section.policies) + len(runs)
    if players < 2:
        raise ConfigError("tournament: one player alone; name more policies, or a run whose kept policies take part")
    if not comparing:
        raise ConfigError("tournament: no judge is asked for match-ups; name one under judges")
    return section


def _check_numbers(config: SuiteConfig) -> None:
    for name, least in (("max_new_tokens", 1), ("top_k", 0), ("responses", 1), ("seed", 0), ("batch_size", 1)):
        checked_integer(f"sampling: {name}", getattr(config.sampling, name), least)
    for name in ("temperature", "top_p"):
        value = getattr(config.sampling, name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"sampling: {name} is {value!r}, expected a number")
    config.sampling.params  # noqa: B018 - checks its own ranges
    if config.prompts.limit is not None:
        checked_integer("prompts: limit", config.prompts.limit, 1)
    checked_integer("prompts: seed", config.prompts.seed, 0)
    _text("prompts: dataset", config.prompts.dataset)
    if isinstance(config.prompts.categories, str):
        _choice("prompts: categories", config.prompts.categories, CATEGORIES)
    checked_integer("intervals: bootstrap", config.intervals.bootstrap, 100)
    confidence = config.intervals.confidence
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0.0 < confidence < 1.0:
        raise ConfigError(f"intervals: confidence is {confidence!r}, expected a number between 0 and 1")


def _distance(given: Any) -> bool | int:
    if isinstance(given, bool) or (isinstance(given, int) and given >= 1):
        return given
    raise ConfigError(f"distance is {given!r}, expected true, false, or a number of prompts, at least 1")


def _check_distance(config: SuiteConfig) -> None:
    """Distances are means over responses drawn from the policy as it is, to a model whose probabilities can be had."""
    if config.reference is None:
        raise ConfigError(
            "distance is asked for, but there is no reference to be distant from; name one with reference"
        )
    specs = config.policies[config.reference].specs
    kinds = sorted({player_kind(spec) for spec in specs})
    if len(specs) > 1 or not set(kinds) <= {"model", "adapter"}:
        raise ConfigError(
            f"distance is asked for, and the reference {config.reference!r} is {len(specs)} × {' and '.join(kinds)}; "
            "expected one model or adapter, whose probabilities can be computed"
        )
    sampling = config.sampling
    if (sampling.temperature, sampling.top_p, sampling.top_k) != (1.0, 1.0, 0):
        raise ConfigError(
            f"distance is asked for with temperature {sampling.temperature}, top_p {sampling.top_p} and top_k "
            f"{sampling.top_k}; expected 1.0, 1.0 and 0, since responses that are drawn otherwise do not measure it"
        )


def _section(kind: type[Section], name: str, given: Any) -> Section:
    values = _mapping(name, given) if given else {}
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ConfigError(f"{name}: {unknown_name('key', key, known)}")
    for key, one in known.items():
        if key not in values and one.default is MISSING and one.default_factory is MISSING:
            raise ConfigError(f"{name}: {key} is missing")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _mapping(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"{name} is {given!r}, expected a mapping with at least one entry")
    return {str(key): value for key, value in given.items()}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(f"{name} is {value!r}, expected text")
    return str(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}, expected true or false")
    return value


def _choice(name: str, value: Any, known: Sequence[str]) -> str:
    if value not in known:
        raise ConfigError(f"{name}: {unknown_name('value', str(value), known)}")
    return value
