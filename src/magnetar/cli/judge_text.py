"""Measures of judges as text for the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from magnetar.evaluation import Estimate
from magnetar.evaluation.judging import Agreement, JudgeEvaluation, LabelMeasures
from magnetar.evaluation.judging.counters import disagreement_figures, truncation_notes
from magnetar.evaluation.judging.groups import GroupMeasures

if TYPE_CHECKING:
    from magnetar.judges.language_model.injections import InjectionReport

__all__ = ["agreement_text", "evaluation_text", "groups_text", "injections_text"]

Row = tuple[str, str, str]


def evaluation_text(found: JudgeEvaluation) -> str:
    """The measures of a judge on pairs.

    Args:
        found: The measures.

    Returns:
        Several lines.
    """
    rows: list[Row] = []
    if found.labels is not None:
        rows += _label_rows(found.labels)
    rows += [
        _row("ties", found.ties),
        _row("flips with the order", found.flips, found.flips_note),
        _row("for the first place", found.first_place, found.flips_note),
        _row("cyclic triples", found.cycles.share if found.cycles else None, found.cycles_note),
        _row("prefers the longer", found.prefers_longer),
        _row("length correlation", found.length_correlation, share=False),
        *_panel_rows(found.counters),
    ]
    masked = f", {found.masked} unanswered and left out" if found.masked else ""
    title = f"judge {found.judge}: {found.pairs} pairs of {found.prompts} prompts, asked {found.asked}{masked}"
    parts = [_table(title, rows, found.confidence, truncation_notes(found.counters))]
    if found.labels is not None and found.labels.categories:
        rows = [
            (name, _percent(one.accuracy.value), f"{_interval(one.accuracy)}, {one.pairs} pairs")
            for name, one in found.labels.categories.items()
        ]
        parts.append(_table("accuracy by category", rows, found.confidence))
    return "\n\n".join(parts)


def agreement_text(found: Agreement) -> str:
    """The agreement of two judges, or of a judge and labels.

    Args:
        found: The figures.

    Returns:
        Several lines.
    """
    no_order = "each response is read by itself" if found.against != "labels" else "there is no order in labels"
    rows = [
        _row("agreement", found.agreement),
        _row("agreement, ties strict", found.strict_agreement),
        _row("kappa", found.kappa, share=False),
        _row("kappa, ties strict", found.strict_kappa, share=False),
        _row("Spearman", found.spearman, share=False),
        _row("Pearson", found.pearson, share=False),
        _row("mean difference of P", found.difference, share=False),
        _row(f"ties of {found.judge}", found.ties),
        _row(f"ties of {found.against}", found.ties_against),
        _row(f"flips of {found.judge}", found.flips, "each response is read by itself"),
        _row(f"flips of {found.against}", found.flips_against, no_order),
    ]
    masked = f"; unanswered by {found.judge}: {found.masked}, by {found.against}: {found.masked_against}"
    title = f"judge {found.judge} against {found.against}: {found.pairs} pairs of {found.prompts} prompts{masked}"
    return _table(title, rows, found.confidence)


def groups_text(found: GroupMeasures, counters: Mapping[str, float] | None = None) -> str:
    """What a judge said of groups.

    Args:
        found: The figures.
        counters: The judge's own counters.

    Returns:
        Several lines.
    """
    rows = [
        _row("ties", found.ties),
        _row("cyclic triples", found.cycles, "no group has three responses"),
        _row("prefers the longer", found.prefers_longer),
        *_panel_rows(counters or {}),
    ]
    title = f"judge {found.judge}: {found.groups} groups, {found.pairs} pairs within them, {found.masked} unanswered"
    return _table(title, rows, found.confidence, truncation_notes(counters or {}))


def injections_text(report: "InjectionReport") -> str:
    """How far a judge can be talked into a verdict.

    Args:
        report: What `measure_injections` found.

    Returns:
        Several lines.
    """
    rows = []
    for one in report.summaries():
        interval = "no verdict to turn" if one.won == 0 else f"{_percent(one.low)} to {_percent(one.high)}"
        unanswered = f", {one.masked} unanswered" if one.masked else ""
        note = f"{interval}, {one.flips} of {one.won} verdicts for the good response turned{unanswered}"
        rows.append((f"{one.family}, {one.arm}", _percent(one.flip_rate), note))
    return _table(f"judge {report.judge}: {len(report.outcomes)} injected responses", rows, report.confidence)


def _panel_rows(counters: Mapping[str, float]) -> list[Row]:
    return [
        (name, _percent(value) if share else _number(value), hint)
        for name, hint, value, share in disagreement_figures(counters)
    ]


def _label_rows(labels: LabelMeasures) -> list[Row]:
    rows = [_row("accuracy", labels.accuracy)]
    if labels.label_ties:
        rows.append(("  labels that are ties", str(labels.label_ties), "no right side, not in the accuracy"))
    for name, baseline in labels.shown_baselines.items():
        gain = f"judge {baseline.difference.value:+.1%}, {_interval(baseline.difference)}"
        rows.append((f"  {name}", _percent(baseline.accuracy.value), f"{_interval(baseline.accuracy)}; {gain}"))
    rows += [
        _row("  where the longer is right", labels.length.accuracy_longer, count=labels.length.pairs_longer),
        _row("  where the shorter is right", labels.length.accuracy_shorter, count=labels.length.pairs_shorter),
    ]
    chance = labels.calibration.error_if_calibrated
    calibration = _row("calibration error", labels.calibration.error, share=False)
    if chance is not None:
        calibration = (*calibration[:2], f"{calibration[2]}; {chance:.3f} if it were calibrated")
    entropy = _row("cross-entropy, nats", labels.cross_entropy_nats, share=False)
    if labels.soft:
        entropy = (*entropy[:2], f"{entropy[2]}; {labels.label_entropy_nats:.3f} at best")
    if labels.certain_errors.value > 0:
        entropy = (*entropy[:2], f"{entropy[2]}; {labels.certain_errors.value:.1%} certain and wrong")
    return [*rows, calibration, entropy, _row("Brier score", labels.brier, share=False)]


def _row(
    name: str, estimate: Estimate | None, missing: str | None = None, *, share: bool = True, count: int | None = None
) -> Row:
    if estimate is None:
        return name, "–", missing or ""
    value = _percent(estimate.value) if share else _number(estimate.value)
    note = _interval(estimate, share) + (f", {count} pairs" if count is not None else "")
    return name, value, note


def _percent(value: float) -> str:
    return "–" if value != value else f"{value:.1%}"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def _interval(estimate: Estimate, share: bool = True) -> str:
    if estimate.low is None or estimate.high is None:
        return estimate.note or "no interval"
    form = _percent if share else _number
    return f"{form(estimate.low)} to {form(estimate.high)}"


def _table(title: str, rows: Sequence[Row], confidence: float, notes: Sequence[str] = ()) -> str:
    head = ("", "value", f"{confidence:.0%} interval")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(2)]
    lines = [f"{a.ljust(widths[0])}  {b.rjust(widths[1])}  {c}".rstrip() for a, b, c in (head, *rows)]
    rule = "-" * max(len(title), *map(len, lines), *map(len, notes))
    return "\n".join([title, rule, lines[0], rule, *lines[1:], rule, *notes, *([rule] if notes else [])])
