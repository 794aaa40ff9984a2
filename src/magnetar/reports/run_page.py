"""The page of a training run, and that of a match-up."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from magnetar.errors import DataError
from magnetar.evaluation.record import package_versions
from magnetar.evaluation.summary import MatchupSummary
from magnetar.evaluation.suspicions import suspicions
from magnetar.reports.charts import MAX_MARKS, run_charts
from magnetar.reports.environment import page_environment, prompt_turns
from magnetar.reports.run_data import RunData, flat_settings, read_run
from magnetar.reports.samples import pair_view
from magnetar.reports.svg import smoothing_window
from magnetar.reports.text_files import write_text

__all__ = ["run_facts", "verdict", "write_matchup_report", "write_run_report"]

_SHOWN_UPDATES = 12
_BEFORE_AFTER = ("Before", "After")
_TWO_PLAYERS = ("Opponent", "Policy")
_UNEVALUATED = "This run has not been evaluated, so nothing can be said about whether the policy got better."


def write_run_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write the page of a training run from the files in its folder.

    Args:
        run_dir: The run's folder, with at least ``metrics.jsonl``.
        out: Where to write; ``report.html`` in the run's folder by default.

    Returns:
        The page's path.

    Raises:
        DataError: If the folder is not a run's, or a file in it is damaged.
    """
    run = read_run(Path(run_dir))
    moves = run.magnet_moves()
    text = (
        page_environment()
        .get_template("run.html.j2")
        .render(
            title=f"Magnetar run {run.name}",
            facts=run_facts(run),
            summary=run.summary,
            verdict=verdict(run.summary) if run.summary else _UNEVALUATED,
            suspicions=suspicions(run.summary, run.config.get("judge")) if run.summary else [],
            charts=run_charts(run),
            window=smoothing_window(len(run.metrics)),
            moves=moves,
            moves_drawn=len(moves) <= MAX_MARKS,
            samples=pair_view(run.evaluation_samples, _BEFORE_AFTER),
            sides=_BEFORE_AFTER,
            groups=_training_samples(run.samples),
            settings={"Training": flat_settings(run.config), "Evaluation": flat_settings(run.evaluation["settings"])},
            versions=run.evaluation["versions"] or run.config.get("versions") or {},
        )
    )
    return write_text(Path(out) if out is not None else Path(run_dir) / "report.html", text)


def write_matchup_report(
    summary: MatchupSummary,
    samples: Iterable[Mapping[str, Any]],
    out: Path,
    *,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of a match-up.

    Args:
        summary: The figures.
        samples: Objects as `magnetar.evaluation.sample_records` gives them.
        out: Where to write.
        settings: How the figures were obtained; plain values.

    Returns:
        ``out``.
    """
    text = (
        page_environment()
        .get_template("matchup.html.j2")
        .render(
            title=f"{summary.policy.name} against {summary.opponent.name}",
            facts={"Judge": summary.judge, "Prompts": summary.prompts, "Comparisons": summary.comparisons}
            | ({"Without an answer": summary.masked} if summary.masked else {}),
            summary=summary,
            verdict=verdict(summary),
            suspicions=suspicions(summary),
            samples=pair_view([dict(sample) for sample in samples], _TWO_PLAYERS),
            sides=_TWO_PLAYERS,
            settings={"Evaluation": flat_settings(settings or {})},
            versions=package_versions(),
        )
    )
    return write_text(Path(out), text)


def verdict(summary: MatchupSummary) -> str:
    """One plain sentence: does the interval of the win rate exclude one half?

    Args:
        summary: The figures of a match-up.

    Returns:
        The sentence.
    """
    rate = summary.win_rate
    policy, opponent = summary.policy.name, summary.opponent.name
    if policy == opponent:
        policy, opponent = "the policy", "the opponent"
    if rate.low is None or rate.high is None:
        return f"There is no interval ({rate.note}), so this says nothing about other prompts."
    if not rate.excludes(0.5):
        return f"The {rate.confidence:.0%} interval includes 50%: this does not show whom the judge prefers."
    better, worse, side = (policy, opponent, "above") if rate.low > 0.5 else (opponent, policy, "below")
    return f"The {rate.confidence:.0%} interval lies {side} 50%: the judge prefers {better} to {worse}."


def run_facts(run: RunData) -> dict[str, Any]:
    """The first things that a reader wants to know, where the run recorded them."""
    flat = flat_settings(run.config)
    wanted = {
        "Method": ("method",),
        "Model": ("model", "model_name_or_path"),
        "Judge": ("judge",),
        "Dataset": ("dataset", "dataset_name"),
    }
    facts: dict[str, Any] = {}
    for label, names in wanted.items():
        found = [value for key, value in flat.items() if key.rsplit(".", 1)[-1] in names and value not in ("", "None")]
        if found:
            facts[label] = found[0]
    facts["Updates"] = int(run.updates[-1])
    seconds = [run.column(f"seconds_{stage}") for stage in ("rollout", "waiting", "logprobs", "update")]
    total = sum(value for column in seconds for value in column if value is not None)
    if total > 0:
        facts["Time in updates"] = f"{total / 60:.1f} min" if total >= 60 else f"{total:.1f} s"
    return facts


def _training_samples(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Samples by update, a dozen updates evenly over the run, each response with its mean win probability."""
    by_update: dict[int, list[dict[str, Any]]] = {}
    try:
        for sample in samples:
            means = _mean_win_prob(sample.get("win_prob"), len(sample["responses"]))
            responses = sorted(zip(sample["responses"], means, strict=True), key=lambda pair: -(pair[1] or 0.0))
            entry = {"turns": prompt_turns(sample["prompt"]), "responses": responses}
            by_update.setdefault(int(sample["update"]), []).append(entry)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"samples.jsonl is damaged ({type(error).__name__}: {error}); expected update, prompt, responses, win_prob"
        ) from error
    updates = sorted(by_update)
    if len(updates) > _SHOWN_UPDATES:
        step = (len(updates) - 1) / (_SHOWN_UPDATES - 1)
        updates = [updates[round(i * step)] for i in range(_SHOWN_UPDATES)]
    return [{"update": update, "samples": by_update[update]} for update in updates]


def _mean_win_prob(win_prob: Any, count: int) -> list[float | None]:
    """One number for each response: given so, or the mean of its row; a response is not compared with itself."""
    if win_prob is None:
        return [None] * count
    if not isinstance(win_prob[0], list):
        return [None if value is None else float(value) for value in win_prob]
    own_group = len(win_prob) == len(win_prob[0]) > 1 and all(row[i] == 0.5 for i, row in enumerate(win_prob))
    return [
        math.fsum(value for j, value in enumerate(row) if not (own_group and i == j)) / (len(row) - own_group)
        for i, row in enumerate(win_prob)
    ]
