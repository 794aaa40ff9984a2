"""Comparing the runs that are finished: answers, one judge, tables, page."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from magnetar.cli.comparison.config import ComparisonConfig
from magnetar.cli.comparison.plan import PlannedRun
from magnetar.cli.comparison.runs import read_record, unfinished
from magnetar.data import limit_prompt_length, load_prompts, refuse_trained_prompts
from magnetar.errors import DataError, JudgeError
from magnetar.evaluation.suspicions import FRAGMENTS
from magnetar.training.config import NashConfig
from magnetar.training.ledger import read_ledger
from magnetar.training.snapshots import SNAPSHOT_FOLDER, snapshots

if TYPE_CHECKING:
    from magnetar.evaluation.comparison.results import ComparisonResult
    from magnetar.evaluation.comparison.tables import FinishedRun
    from magnetar.judges import Judge

__all__ = ["evaluate", "held_out_prompts"]

SETTINGS_SHOWN = ("output_dir", "model", "dataset", "judge", "eval_judge", "eval_prompts", "settings", "methods")
SAMPLES_SHOWN = 40


def held_out_prompts(config: ComparisonConfig, args: NashConfig) -> list[Any]:
    """The prompts of the evaluation: some of the held-out ones, none of which is trained on.

    Args:
        config: Of the comparison.
        args: Settings of one of its runs, for the length limit.

    Returns:
        At least two prompts.

    Raises:
        DataError: No held-out prompts are named, or some of them are training prompts.
    """
    from magnetar.modeling.loading import load_tokenizer

    if config.eval_prompts is None and config.dataset != "demo":
        raise DataError(
            "eval_prompts is missing: the policies are compared on prompts that none was trained on; name a file of "
            "them, or train only with --no_evaluation"
        )
    split = config.eval_split or ("test" if config.eval_prompts in (None, "demo") else None)
    prompts = load_prompts(config.eval_prompts or "demo", split)
    train_split = config.dataset_split or ("train" if config.dataset == "demo" else None)
    refuse_trained_prompts(prompts["prompt"], load_prompts(config.dataset, train_split)["prompt"])
    prompts, _ = limit_prompt_length(prompts, load_tokenizer(config.model), args.max_prompt_length, "drop")
    prompts = prompts.shuffle(seed=config.evaluation.seed)
    chosen = prompts["prompt"][: config.evaluation.prompts]
    if len(chosen) < 2:
        raise DataError(f"eval_prompts has {len(chosen)} prompts within max_prompt_length, expected at least 2")
    return list(chosen)


def evaluate(runs: Sequence[PlannedRun], config: ComparisonConfig, prompts: list[Any]) -> "ComparisonResult | None":
    """Let finished runs and the reference play, and write the tables and the page.

    Args:
        runs: All runs of the comparison.
        config: Of the comparison.
        prompts: Held-out prompts.

    Returns:
        What was found; None when no run is finished, or another command is evaluating.

    Raises:
        MagnetarError: A model, a judge or a file cannot be used.
    """
    finished = [_finished(run, config) for run in runs if read_record(run.folder).status == "finished"]
    if not finished:
        print("no run is finished, so there is nothing to compare yet", file=sys.stderr)
        return None
    folder = config.output_dir / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "evaluation.lock").acquire(timeout=0):
            return _evaluate(runs, finished, config, prompts, folder)
    except Timeout:
        print("another command is comparing the runs; left to that one", file=sys.stderr)
        return None


def _evaluate(
    runs: Sequence[PlannedRun],
    finished: "list[FinishedRun]",
    config: ComparisonConfig,
    prompts: list[Any],
    folder: Path,
) -> "ComparisonResult":
    from magnetar.evaluation import package_versions
    from magnetar.evaluation.comparison.contestants import REFERENCE, Contestant, collect_answers
    from magnetar.evaluation.comparison.results import ComparisonResult
    from magnetar.evaluation.comparison.round_robin import judge_pairs, needed_comparisons
    from magnetar.evaluation.comparison.samples import comparison_samples
    from magnetar.evaluation.comparison.tables import (
        IntervalSettings,
        curve_points,
        method_rows,
        run_rows,
        win_rate_matrix,
    )
    from magnetar.judges import build_judge
    from magnetar.reports.comparison_files import write_comparison

    folders = {run.folder.name: run.folder for run in runs}
    contestants = [Contestant(REFERENCE, config.model)]
    contestants += [Contestant(run.name, str(folders[run.name])) for run in finished]
    for run in finished:
        for name, _, _ in run.points:
            path = folders[run.name] / SNAPSHOT_FOLDER / name.removeprefix(f"{run.name}-")
            contestants.append(Contestant(name, str(path), measure_kl=False))
    settings = _answer_settings(runs[0], config)
    answers = collect_answers(contestants, prompts, config.model, folder / "answers", settings)

    judge = _kept(build_judge(config.eval_judge or config.judge), folder / "judge_answers.sqlite")
    pairs = _pairs(finished)
    count, unit = needed_comparisons(judge, len(pairs), len(prompts), settings.responses, len(contestants))
    print(f"judge {judge.name}: {count:,} {unit}, less what it was asked before", file=sys.stderr, flush=True)
    rates = judge_pairs(answers, prompts, judge, pairs, progress=settings.progress)
    evaluation = config.evaluation
    intervals = IntervalSettings(evaluation.bootstrap, evaluation.confidence, evaluation.seed)
    rows = method_rows(finished, answers, rates, intervals)
    result = ComparisonResult(
        rows=rows,
        runs=run_rows(finished, rates, intervals),
        matrix=win_rate_matrix(finished, rates, intervals),
        curves=curve_points(finished, rates, intervals, evaluation.curve_points),
        budget_unit=config.budget.unit,
        budget=config.budget.amount,
        judge=_judge_in_training(finished, folders),
        eval_judge=judge.name,
        same_judge=_same_judge(config),
        prompts=len(prompts),
        responses=settings.responses,
        confidence=evaluation.confidence,
        missing=unfinished(runs),
        notes=_notes(finished, config, {row.label: row.truncated for row in rows}),
        settings=_shown(config, settings),
        versions=package_versions(),
        samples=comparison_samples(
            finished, answers, prompts, rates, judge.name, count=SAMPLES_SHOWN, seed=evaluation.seed
        ),
    )
    write_comparison(result, config.output_dir)
    return result


def _finished(run: PlannedRun, config: ComparisonConfig) -> "FinishedRun":
    from magnetar.evaluation.comparison.results import Spent
    from magnetar.evaluation.comparison.tables import FinishedRun

    ledger = read_ledger(run.folder)
    points = config.evaluation.curve_points

    # With other curve_points than the run had, several policies may lie between two points: the first is nearest.
    kept: dict[int, tuple[str, int, int]] = {}
    for path, at in snapshots(run.folder):
        spent = config.budget.spent(at)
        number = spent * points // config.budget.amount
        if 0 < number < points:
            kept.setdefault(number, (f"{run.folder.name}-{path.name}", number, spent))
    return FinishedRun(
        label=run.label,
        method=str(run.settings["method"]),
        seed=run.seed,
        name=run.folder.name,
        spent=Spent(ledger.comparisons, ledger.generated_tokens, ledger.updates, ledger.seconds),
        points=tuple(kept.values()),
        budget_spent=config.budget.spent(ledger),
    )


def _pairs(finished: "Sequence[FinishedRun]") -> list[tuple[str, str]]:
    """Every final policy against every one of another method, and against the reference; points against that alone."""
    from magnetar.evaluation.comparison.contestants import REFERENCE

    pairs = [
        (one.name, other.name)
        for at, one in enumerate(finished)
        for other in finished[at + 1 :]
        if one.label != other.label
    ]
    for run in finished:
        pairs += [(name, REFERENCE) for name in (run.name, *(point for point, _, _ in run.points))]
    return pairs


def _answer_settings(run: PlannedRun, config: ComparisonConfig) -> Any:
    """How contestants are sampled: as in training by the settings for all, unless the evaluation says otherwise."""
    from magnetar.cli.run_options import settings_run
    from magnetar.evaluation.comparison.contestants import AnswerSettings
    from magnetar.rollout import SamplingParams

    common = {name: value for name, value in run.settings.items() if name in ("model", "dataset", "judge")}
    sampling = {name: config.settings[name] for name in ("temperature", "top_p", "top_k") if name in config.settings}
    _, args, _ = settings_run({**common, **sampling, "output_dir": str(config.output_dir), "use_cpu": True})
    evaluation = config.evaluation
    length = evaluation.max_new_tokens or config.settings.get("max_completion_length", args.max_completion_length)
    _, _, model_config = run.parsed()
    return AnswerSettings(
        SamplingParams(
            length,
            args.temperature if evaluation.temperature is None else float(evaluation.temperature),
            args.top_p,
            args.top_k,
        ),
        responses=evaluation.responses,
        seed=evaluation.seed,
        dtype=model_config.dtype or "float32",
        batch_size=evaluation.batch_size,
        progress=not config.settings.get("disable_tqdm", False),
    )


def _kept(judge: "Judge", path: Path) -> "Judge":
    """The judge with its answers kept on disk, where it can tell what decides them."""
    from magnetar.judges.wrappers import Cached

    try:
        return Cached(judge, path)
    except JudgeError as error:
        print(f"note: the judge's answers are not kept, since {error}", file=sys.stderr)
        return judge


def _same_judge(config: ComparisonConfig) -> bool:
    """Whether methods are compared by what they learned from."""
    return config.eval_judge is None or config.eval_judge == config.judge


def _notes(finished: "Sequence[FinishedRun]", config: ComparisonConfig, cut_off: dict[str, float]) -> list[str]:
    """What a reader has to know; `cut_off` is the share of each line's responses that ended for want of room."""
    notes = []
    if _same_judge(config):
        notes.append(
            "The judge that compared is the one that methods learnt from, so that whoever found its weak spots wins; "
            "name another one with eval_judge."
        )
    if len({run.seed for run in finished}) == 1:
        notes.append("One seed for each method: the intervals say nothing about what another seed would have given.")
    least, most = min(cut_off.values()), max(cut_off.values())
    if most > FRAGMENTS:
        notes.append(
            f"{least:.0%} to {most:.0%} of a line's responses were cut off for want of room: the judge compared "
            "beginnings, and a larger max_completion_length shows what whole answers are worth."
        )
    short = [run for run in finished if run.budget_spent < config.budget.amount]
    if short:
        told = ", ".join(f"{run.label} (seed {run.seed})" for run in short)
        notes.append(f"Ended before the budget of {config.budget.amount:,} {config.budget.unit} was spent: {told}.")
    return notes


def _judge_in_training(finished: "Sequence[FinishedRun]", folders: dict[str, Path]) -> str:
    """Names of the judges that runs learnt from, as the runs wrote them down: one, unless methods have their own."""
    names: list[str] = []
    for run in finished:
        record = json.loads((folders[run.name] / "magnetar_config.json").read_text(encoding="utf-8"))
        names.append(str(record["judge"]))
    return ", ".join(dict.fromkeys(names))


def _shown(config: ComparisonConfig, settings: Any) -> dict[str, Any]:
    """The configuration as plain values."""
    return {
        **{name: _plain(getattr(config, name)) for name in SETTINGS_SHOWN},
        "budget": {config.budget.unit: config.budget.amount},
        "seeds": list(config.seeds),
        "evaluation": {
            **vars(config.evaluation),
            "temperature": settings.sampling.temperature,
            "max_new_tokens": settings.sampling.max_new_tokens,
        },
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return {key: _plain(entry) for key, entry in value.items()} if isinstance(value, dict) else value
