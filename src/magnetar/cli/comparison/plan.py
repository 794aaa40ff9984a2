"""The runs of a comparison: which there are, and that all their settings can work, before the first one starts."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trl import ModelConfig  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

from magnetar.cli.comparison.config import ComparisonConfig, slug
from magnetar.cli.run_options import RunOptions, settings_run
from magnetar.errors import ConfigError, MagnetarError, unknown_name
from magnetar.judges import parse_judge_spec, parse_scoring_spec
from magnetar.training.config import NashConfig

__all__ = [
    "NEUTRAL",
    "PlannedRun",
    "default_settings",
    "differences",
    "plan_runs",
    "selected_runs",
    "settings_of_label",
]

# Settings that change what is shown or how a run can be resumed, and not what it learns.
NEUTRAL = {
    *("disable_tqdm", "logging_steps", "logging_first_step", "print_samples", "sample_steps", "num_samples"),
    *("report_to", "run_name", "save_steps", "save_strategy", "save_total_limit", "logging_dir"),
}
ABSENT = "nothing"
STEADY = ("constant", "constant_with_warmup", "inverse_sqrt")  # learning rates that do not depend on a run's length


@dataclass(frozen=True)
class PlannedRun:
    """One method with one seed.

    Attributes:
        label: What tables call the method.
        seed: Of the run.
        folder: An ordinary folder of `magnetar train`.
        settings: All settings of the run, by field name.
        data: Digest of the training prompts' file; None for prompts that are no file.
    """

    label: str
    seed: int
    folder: Path
    settings: Mapping[str, Any]
    data: str | None

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.label}, seed {self.seed}"

    def parsed(self) -> tuple[RunOptions, NashConfig, ModelConfig]:
        """Fresh objects of the settings, which a trainer may change."""
        return settings_run(self.settings)


def plan_runs(config: ComparisonConfig) -> list[PlannedRun]:
    """All runs, method by method, with settings that were parsed.

    Raises:
        ConfigError: Settings that cannot work; the message names the label.
        JudgeError: A judge's spec that cannot.
    """
    for spec in (config.judge, config.eval_judge):
        if spec is not None:
            parse_judge_spec(spec)
    source = Path(config.dataset)
    data = hashlib.sha256(source.read_bytes()).hexdigest()[:16] if source.is_file() else None
    runs = []
    for label, own in config.methods.items():
        settings = settings_of_label(label, own, config)
        for seed in config.seeds:
            folder = config.output_dir / "runs" / f"{slug(label)}-seed{seed}"
            runs.append(PlannedRun(label, seed, folder, {**settings, "output_dir": str(folder), "seed": seed}, data))
    return runs


def selected_runs(runs: list[PlannedRun], labels: list[str] | None, seeds: list[int] | None) -> list[PlannedRun]:
    """Those that ``--only`` and ``--seed`` name.

    Raises:
        ConfigError: A label or a seed that the configuration does not have.
    """
    known = dict.fromkeys(run.label for run in runs)
    for label in labels or ():
        if label not in known:
            raise ConfigError(f"--only: {unknown_name('label', label, known)}")
    known_seeds = {run.seed for run in runs}
    for seed in seeds or ():
        if seed not in known_seeds:
            raise ConfigError(f"--seed is {seed}, expected one of the config's seeds: {sorted(known_seeds)}")
    return [run for run in runs if (not labels or run.label in labels) and (not seeds or run.seed in seeds)]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings in which two runs of one folder differ, each as "name: before → now".

    A setting that is left out is at its default, so that naming a default changes nothing.
    """
    defaults = default_settings()
    names = [name for name in {**before, **now} if name not in NEUTRAL | {"output_dir"}]
    pairs = [(name, *(side.get(name, defaults.get(name, ABSENT)) for side in (before, now))) for name in names]
    return [f"{name}: {old!r} → {new!r}" for name, old, new in pairs if old != new]


def default_settings() -> dict[str, Any]:
    """What every setting of a run is when it is not given, by name."""
    return {f.name: f.default for kind in (RunOptions, NashConfig, ModelConfig) for f in fields(kind)}


def settings_of_label(
    label: str, own: Mapping[str, Any], config: ComparisonConfig, *, judge_is_there: bool = True
) -> dict[str, Any]:
    """Settings of a label's runs but for the seed and the folder, parsed once to see that they work.

    Args:
        label: What tables call the method.
        own: Its own settings.
        config: Of the comparison.
        judge_is_there: Whether the judge can be looked at already; one that is trained first cannot.

    Raises:
        MagnetarError: Settings that cannot work; the message names the label.
    """
    settings: dict[str, Any] = {"save_steps": None, "save_total_limit": 1, **config.settings, **own}
    settings |= {"model": config.model, "dataset": config.dataset, "report": False, "eval_holdout": 0}
    settings["judge"] = own.get("judge", config.judge)
    if config.dataset_split is not None:
        settings["dataset_split"] = config.dataset_split
    if settings.get("eval_strategy", "no") not in ("no", False) and config.eval_prompts is not None:
        settings |= {"eval_prompts": config.eval_prompts, "eval_split": config.eval_split}
    every = settings.pop("save_steps")
    probe = {**settings, "output_dir": str(config.output_dir / "runs" / slug(label)), "seed": config.seeds[0]}
    try:
        if judge_is_there:
            parse_judge_spec(settings["judge"])
        _, args, _ = settings_run(probe)
        method = args.build_method()
        if judge_is_there and method.sampled_objective.needs_reward:
            parse_scoring_spec(settings["judge"], f"method {method.name!r}")
        bound = _bounded(args, config)
    except MagnetarError as error:
        raise type(error)(f"methods: {label}: {error}") from error
    steps = args.steps_per_update
    settings["save_steps"] = every if every is not None else steps * max(1, min(10, bound // 4))
    return settings | {
        "max_steps": bound * steps,
        **({} if config.budget.unit == "updates" else {f"max_{config.budget.unit}": config.budget.amount}),
    }


def _bounded(args: NashConfig, config: ComparisonConfig) -> int:
    if args.world_size > 1:
        raise ConfigError(
            f"{args.world_size} processes were launched; a comparison trains each run in one process. Start several "
            "commands instead, each with --only LABEL or --seed K and, for GPUs, its own CUDA_VISIBLE_DEVICES"
        )
    if config.budget.unit == "tokens" and args.num_rounds > 1:
        raise ConfigError(
            f"num_rounds is {args.num_rounds}, but with a budget of tokens nobody knows beforehand when a round ends; "
            "use a budget of comparisons or updates, or magnet_every in place of rounds"
        )
    schedule = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    if config.budget.unit == "tokens" and (schedule not in STEADY or 0 < args.warmup_steps < 1):
        raise ConfigError(
            f"lr_scheduler_type is {schedule!r} with warmup_steps={args.warmup_steps:g}, but with a budget of tokens "
            "nobody knows beforehand how many steps there are to spread it over; use 'constant' (or "
            "'constant_with_warmup' with a number of steps), or a budget of comparisons or updates"
        )
    return args.updates_within(config.budget)
