"""One self-contained page about a judge: accuracy beside baselines, calibration, order, cycles, length, examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.counters import disagreement_figures, truncation_notes
from magnetar.evaluation.judging.measures import Disagreement, JudgeEvaluation, LabelMeasures
from magnetar.evaluation.record import package_versions
from magnetar.reports.drawing.bars import Measure, interval_bars
from magnetar.reports.environment import page_environment
from magnetar.reports.judge_charts import length_chart, reliability_chart
from magnetar.reports.run_data import flat_settings
from magnetar.reports.text_files import write_text

__all__ = ["judge_verdict", "write_judge_page"]

ACCURACY = Measure("accuracy", base=0.5, low=0.4, high=0.7)


@dataclass(frozen=True)
class Figure:
    """A line in the table of figures.

    Attributes:
        name: What it is.
        hint: How to read it.
        value: In words.
        interval: In words; the reason where there is none.
    """

    name: str
    hint: str
    value: str
    interval: str


def write_judge_page(
    evaluation: JudgeEvaluation,
    out: Path,
    *,
    title: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of an evaluated judge.

    Args:
        evaluation: What `magnetar.evaluation.judging.evaluate_judge` found.
        out: Where to write.
        title: Headline; made of the judge's name when None.
        settings: How the judge was made and asked; plain values, may be nested.

    Returns:
        ``out``.

    Raises:
        DataError: It cannot be written.
    """
    labels = evaluation.labels
    text = (
        page_environment()
        .get_template("judge.html.j2")
        .render(
            title=title or f"Judge {evaluation.judge}",
            facts={"Pairs": f"{evaluation.pairs:,}", "Prompts": f"{evaluation.prompts:,}", "Asked": evaluation.asked}
            | ({"Unanswered": f"{evaluation.masked:,}"} if evaluation.masked else {}),
            found=evaluation,
            labels=labels,
            verdict=judge_verdict(evaluation),
            warnings=_warnings(evaluation),
            accuracy_chart=None if labels is None else _accuracy_chart(labels),
            reliability=None if labels is None else reliability_chart(labels.calibration.equal_width),
            length_chart=length_chart(evaluation.length_curve) if evaluation.length_curve.pairs else None,
            figures=_figures(evaluation),
            categories=[] if labels is None else _categories(labels),
            examples=[] if labels is None else [_example(one) for one in labels.disagreements],
            settings={"Evaluation": flat_settings(settings or {})},
            versions=package_versions(),
            percent_interval=_percent_interval,
        )
    )
    return write_text(Path(out), text)


def judge_verdict(evaluation: JudgeEvaluation) -> str:
    """One plain sentence: is the judge better than a coin, and than the best of the other ways?

    Args:
        evaluation: The measures.

    Returns:
        The sentence.
    """
    labels = evaluation.labels
    if labels is None:
        return "There are no labels, so nothing can be said about whether the judge is right."
    accuracy = labels.accuracy
    if accuracy.low is None:
        return f"There is no interval ({accuracy.note}), so this says nothing about other prompts."
    name, best = max(labels.shown_baselines.items(), key=lambda item: _known(item[1].accuracy.value))
    better = best.difference.low is not None and best.difference.low > 0.0
    worse = best.difference.high is not None and best.difference.high < 0.0
    if not accuracy.excludes(0.5):
        rule = f", and worse than “{name}”" if worse else ""
        return f"The {accuracy.confidence:.0%} interval includes 50%: not shown to be better than a coin{rule}."
    if accuracy.value < 0.5:
        return "The judge is wrong more often than a coin: it prefers what the labels do not."
    if better:
        return f"Better than a coin, and than “{name}”, the best of the simple ways to judge."
    if worse:
        return f"Better than a coin, but worse than “{name}”."
    return f"Better than a coin; whether it is better than “{name}” these pairs do not tell."


def _known(value: float) -> float:
    return value if value == value else -1.0


def _warnings(found: JudgeEvaluation) -> list[str]:
    """What to distrust, in words; thresholds decide about words only, never about a figure."""
    told = truncation_notes(found.counters)
    labels = found.labels
    if found.flips is not None and found.flips.value > 0.1:
        told.append(f"Exchanging the two responses changes the winner in {found.flips.value:.0%} of the pairs.")
    if found.masked > 0.01 * found.pairs:
        told.append(f"{found.masked / found.pairs:.0%} of the pairs were left unanswered and are in no figure.")
    if labels is not None and labels.calibration.error_if_calibrated is not None:
        error, chance = labels.calibration.error, labels.calibration.error_if_calibrated
        if error.low is not None and error.low > 2.0 * chance and error.value > 0.05:
            told.append(f"Its probabilities are off by {error.value:.2f} on average; chance alone gives {chance:.3f}.")
    if labels is not None:
        longer, shorter = labels.length.accuracy_longer, labels.length.accuracy_shorter
        if longer.low is not None and shorter.high is not None and longer.low > shorter.high:
            told.append(
                f"It is right in {longer.value:.0%} of the pairs whose longer response is the better one, and in "
                f"{shorter.value:.0%} of the others: it favours length."
            )
        elif longer.high is not None and shorter.low is not None and longer.high < shorter.low:
            told.append(
                f"It is right in {shorter.value:.0%} of the pairs whose shorter response is the better one, and in "
                f"{longer.value:.0%} of the others: it favours brevity."
            )
    return told


def _accuracy_chart(labels: LabelMeasures) -> Markup:
    entries: dict[str, Estimate | None] = {"this judge": labels.accuracy}
    entries |= {name: baseline.accuracy for name, baseline in labels.shown_baselines.items()}
    tones = [1, *([5] * (len(entries) - 1))]
    return interval_bars(
        "Accuracy of the judge and of simple ways to judge, with intervals", entries, ACCURACY, tones
    ).svg


def _figures(found: JudgeEvaluation) -> list[Figure]:
    rows = []
    labels = found.labels
    if labels is not None:
        calibration = labels.calibration
        chance = calibration.error_if_calibrated
        by_chance = None if chance is None else f"by chance {chance:.3f}"
        rows += [
            _number("Calibration error", "equal-width bins", calibration.error, by_chance),
            _number("Calibration error", "equal-mass bins", calibration.error_equal_mass),
            _number("Cross-entropy", "nats; 0.693 for always one half", labels.cross_entropy_nats, _entropy(labels)),
            _number("Brier score", "0.25 for always one half", labels.brier),
        ]
    no_order = found.flips_note or ""
    rows += [
        _percent("Flips", "winner changes with the order", found.flips, no_order),
        _percent("For the first place", "mean probability; 50% is fair", found.first_place, no_order),
        _percent("Cyclic triples", _triples(found), found.cycles.share if found.cycles else None, found.cycles_note),
        _percent("Ties", "answers of one half", found.ties),
        _percent("Prefers the longer", "ties one half", found.prefers_longer),
        _number("Length correlation", "Spearman, judge", found.length_correlation),
    ]
    if labels is not None:
        length = labels.length
        rows += [
            _number("Length correlation", "Spearman, labels", length.label_correlation),
            _percent("Right if the longer is", f"{length.pairs_longer:,} pairs", length.accuracy_longer),
            _percent("Right if the shorter is", f"{length.pairs_shorter:,} pairs", length.accuracy_shorter),
        ]
    rows += [
        Figure(name[0].upper() + name[1:], hint, f"{value:.1%}" if share else f"{value:.3f}", "")
        for name, hint, value, share in disagreement_figures(found.counters)
    ]
    return rows


def _entropy(labels: LabelMeasures) -> str | None:
    told = []
    if labels.soft:
        told.append(f"at best {labels.label_entropy_nats:.3f}")
    if labels.certain_errors.value > 0:
        told.append(f"{labels.certain_errors.value:.1%} certain and wrong")
    return ", ".join(told) or None


def _triples(found: JudgeEvaluation) -> str:
    if found.cycles is None:
        return "three responses in a circle"
    return f"of {found.cycles.triples:,} triples, {found.cycles.prompts:,} prompts"


def _number(name: str, hint: str, estimate: Estimate, extra: str | None = None) -> Figure:
    value = "–" if estimate.value != estimate.value else f"{estimate.value:.3f}"
    interval = estimate.note or "no interval"
    if estimate.low is not None and estimate.high is not None:
        interval = f"{estimate.low:.3f} to {estimate.high:.3f}"
    return Figure(name, hint, value, interval + (f"; {extra}" if extra else ""))


def _percent(name: str, hint: str, estimate: Estimate | None, missing: str | None = None) -> Figure:
    if estimate is None:
        return Figure(name, hint, "–", missing or "")
    value = "–" if estimate.value != estimate.value else f"{estimate.value:.1%}"
    return Figure(name, hint, value, _percent_interval(estimate))


def _percent_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return estimate.note or "no interval"
    return f"{estimate.low:.1%} to {estimate.high:.1%}"


def _categories(labels: LabelMeasures) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "pairs": one.pairs,
            "masked": one.masked,
            "accuracy": one.accuracy,
            "longer_wins": one.longer_wins,
            "known": one.accuracy.value == one.accuracy.value,
        }
        for name, one in labels.categories.items()
    ]


def _example(one: Disagreement) -> dict[str, Any]:
    turns = one.prompt if isinstance(one.prompt, list) else [{"role": "", "content": one.prompt}]
    return {
        "turns": [(turn["role"], turn["content"]) for turn in turns],
        "category": one.category,
        "first": one.first,
        "second": one.second,
        "label": one.label,
        "win_prob": one.win_prob,
    }
