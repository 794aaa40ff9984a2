"""The configuration of `magnetar compare`: which methods and seeds, on what, under which budget."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from magnetar.cli.run_options import as_number, read_yaml
from magnetar.errors import ConfigError, checked_integer, unknown_name
from magnetar.methods import METHODS, PUBLISHED_NAMES
from magnetar.training.ledger import Budget, BudgetUnit

__all__ = ["ComparisonConfig", "EvaluationSettings", "comparison_config", "load_comparison"]

NAMES = (*METHODS, *PUBLISHED_NAMES)
REFERENCE = "reference"  # the name that tables give to where training started
OWN = {
    "model": "the key 'model'",
    "dataset": "the key 'dataset'",
    "dataset_split": "the key 'dataset_split'",
    "seed": "the key 'seeds'",
    "output_dir": "the key 'output_dir'; every run has its folder in it",
    "max_steps": "the budget",
    "num_train_epochs": "the budget; prompts are played again when all have been",
    "max_comparisons": "the budget",
    "max_tokens": "the budget",
    "eval_prompts": "the key 'eval_prompts'",
    "eval_split": "the key 'eval_split'",
    "eval_judge": "the key 'eval_judge'",
    "eval_holdout": "the key 'eval_prompts'",
    "report": "the page of the whole comparison",
    "resume_from_checkpoint": "repeating the command, which goes on with every run that was interrupted",
    "overwrite_output_dir": "removing the folder of a run that is to be made again",
}
"""Settings of `magnetar train` that a comparison sets itself, and from what."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How the trained policies are compared.

    Attributes:
        prompts: Held-out prompts, drawn with ``seed`` where there are more.
        responses: Responses of each player to each prompt.
        curve_points: Points of each method's curve of win rate against budget, evenly spaced, the last at the end.
        seed: Of the sampling of responses, of the choice of prompts and of the bootstrap.
        temperature: Sampling temperature of all players; that of ``settings`` by default.
        max_new_tokens: Longest response in tokens; ``max_completion_length`` of ``settings`` by default.
        batch_size: Prompts at a time; changes speed and memory only.
        bootstrap: Resamples of each interval.
        confidence: Nominal coverage of the intervals, in (0, 1).
    """

    prompts: int = 100
    responses: int = 2
    curve_points: int = 3
    seed: int = 0
    temperature: float | None = None
    max_new_tokens: int | None = None
    batch_size: int = 32
    bootstrap: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name, least in (("prompts", 2), ("responses", 1), ("curve_points", 1), ("seed", 0), ("batch_size", 1)):
            checked_integer(f"evaluation: {name}", getattr(self, name), least)
        checked_integer("evaluation: bootstrap", self.bootstrap, 100)
        if self.max_new_tokens is not None:
            checked_integer("evaluation: max_new_tokens", self.max_new_tokens, 1)
        for name, low, high in (("temperature", 0.0, float("inf")), ("confidence", 0.0, 1.0)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and low < value < high):
                raise ConfigError(f"evaluation: {name} is {value!r}, expected a number between {low:g} and {high:g}")


@dataclass(frozen=True)
class ComparisonConfig:
    """What a configuration file says, checked as far as that goes without the settings of the runs.

    Attributes:
        output_dir: Where everything is written.
        model: Hub id or folder of the model, or "demo".
        dataset: Training prompts.
        judge: Spec of the judge that methods learn from.
        budget: What each run may spend.
        seeds: One run of each method for each.
        settings: Settings of `magnetar train` for all methods.
        methods: Label → settings of its own, ``method`` among them.
        eval_judge: Spec of the judge of the evaluation; None for the training judge.
        eval_prompts: Held-out prompts; None for the test split of the embedded ones.
        dataset_split: Split of the dataset.
        eval_split: Split of the held-out prompts.
        evaluation: How the policies are compared.
        keep_checkpoints: Whether finished runs keep what only resuming needs.
    """

    output_dir: Path
    model: str
    dataset: str
    judge: Any
    budget: Budget
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]
    eval_judge: Any = None
    eval_prompts: str | None = None
    dataset_split: str | None = None
    eval_split: str | None = None
    evaluation: EvaluationSettings = EvaluationSettings()
    keep_checkpoints: bool = False


KEYS = {f.name for f in fields(ComparisonConfig)}
NEEDED = ("output_dir", "model", "dataset", "judge", "budget", "seeds", "methods")


def load_comparison(path: Path) -> ComparisonConfig:
    """Read and check a configuration file.

    Args:
        path: YAML.

    Returns:
        The configuration.

    Raises:
        ConfigError: The file or an entry cannot be used; the message names the entry and what is expected.
    """
    return comparison_config(read_yaml(path, KEYS, "compare"), f"config file {path}")


def comparison_config(found: Mapping[str, Any], where: str) -> ComparisonConfig:
    """Check what a configuration says.

    Args:
        found: Keys of `ComparisonConfig` and their values, as YAML gives them.
        where: What it comes from, for messages.

    Returns:
        The configuration.

    Raises:
        ConfigError: As `load_comparison`.
    """
    for name in found:
        if name not in KEYS:
            raise ConfigError(f"{where}: {unknown_name('key', str(name), KEYS)}")
    for name in NEEDED:
        if found.get(name) is None:
            raise ConfigError(f"{where}: {name} is missing; expected keys: {', '.join(NEEDED)}")
    for name in ("output_dir", "model", "dataset", "eval_prompts", "dataset_split", "eval_split"):
        if found.get(name) is not None and not isinstance(found[name], str):
            raise ConfigError(f"{name} is {found[name]!r}, expected text")
    if not isinstance(found.get("keep_checkpoints", False), bool):
        raise ConfigError(f"keep_checkpoints is {found['keep_checkpoints']!r}, expected true or false")
    settings = _settings("settings", found.get("settings"))
    for name, key in (("judge", "judge"), ("method", "methods")):
        if name in settings:
            raise ConfigError(f"settings: {name} is set by the key {key!r}; remove it there")
    return ComparisonConfig(
        output_dir=Path(found["output_dir"]),
        model=found["model"],
        dataset=found["dataset"],
        judge=found["judge"],
        budget=_budget(found["budget"]),
        seeds=_seeds(found["seeds"]),
        settings=settings,
        methods=_methods(found["methods"]),
        eval_judge=found.get("eval_judge"),
        eval_prompts=found.get("eval_prompts"),
        dataset_split=found.get("dataset_split"),
        eval_split=found.get("eval_split"),
        evaluation=_evaluation(found.get("evaluation")),
        keep_checkpoints=found.get("keep_checkpoints", False),
    )


def slug(text: str) -> str:
    """A label as part of a folder's name: "no self-play" is "no-self-play"."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is {value!r}, expected a mapping of field: value")
    return {str(key): as_number(entry) if isinstance(entry, str) else entry for key, entry in value.items()}


def _settings(name: str, value: Any) -> dict[str, Any]:
    settings = _mapping(name, value)
    for key in settings:
        if key in OWN:
            raise ConfigError(f"{name}: {key} is set by {OWN[key]}; remove it there")
    return settings


def _budget(value: Any) -> Budget:
    units = get_args(BudgetUnit)
    expected = f"expected exactly one of {', '.join(units)}, for instance {{comparisons: 2000}}"
    if not isinstance(value, Mapping):
        raise ConfigError(f"budget is {value!r}, {expected}")
    for unit in value:
        if unit not in units:
            raise ConfigError(f"budget: {unknown_name('unit', str(unit), units)}")
    if len(value) != 1:
        raise ConfigError(f"budget names {' and '.join(map(str, value)) or 'nothing'}, {expected}")
    unit, amount = next(iter(value.items()))
    return Budget(unit, checked_integer(f"budget: {unit}", amount, 1))


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"seeds is {value!r}, expected a list of at least one integer, for instance [0, 1, 2]")
    seeds = tuple(checked_integer("a seed", seed, 0) for seed in value)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds is {value!r}, expected different ones: the same seed gives the same run")
    return seeds


def _methods(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(
            f"methods is {value!r}, expected at least one label with its settings, for instance mpo: {{}}"
        )
    methods: dict[str, dict[str, Any]] = {}
    slugs: dict[str, str] = {}
    for key, entry in value.items():
        label = str(key)
        own = _settings(f"methods: {label}", entry)
        if not slug(label):
            raise ConfigError(f"methods: label {label!r} has neither letters nor digits; its runs need a folder's name")
        if label == REFERENCE or slug(label) == REFERENCE:
            raise ConfigError(f"methods: label {label!r} is what tables call the start of training; choose another")
        if slug(label) in slugs:
            raise ConfigError(
                f"methods: labels {slugs[slug(label)]!r} and {label!r} would share the folders {slug(label)}-seed…; "
                "rename one"
            )
        slugs[slug(label)] = label
        methods[label] = _named(label, own)
    return methods


def _named(label: str, own: dict[str, Any]) -> dict[str, Any]:
    """Settings with the method's name, which is the label where none is given."""
    if "method" in own:
        if label in NAMES and own["method"] not in (label, PUBLISHED_NAMES.get(label)):
            raise ConfigError(
                f"methods: label {label!r} is the name of a method, but its runs are of {own['method']!r}; rename it"
            )
        return own
    if label in NAMES:
        return {"method": label, **own}
    nearest = get_close_matches(label, NAMES, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ConfigError(
        f"methods: label {label!r} is no method's name and names none; {hint}give it one, for instance "
        f"{label!r}: {{method: mpo}} (magnetar methods lists all)"
    )


def _evaluation(value: Any) -> EvaluationSettings:
    settings = _mapping("evaluation", value)
    known = [f.name for f in fields(EvaluationSettings)]
    for key in settings:
        if key not in known:
            raise ConfigError(f"evaluation: {unknown_name('field', key, known)}")
    return EvaluationSettings(**settings)
