"""One self-contained page of a comparison of methods: the table, curves over the budget, the matrix, KL."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnetar.evaluation.comparison.results import ComparisonResult, MethodRow
from magnetar.evaluation.intervals import Estimate
from magnetar.reports.comparison_charts import budget_chart, kl_chart, rate_range
from magnetar.reports.drawing.bars import interval_bars
from magnetar.reports.drawing.canvas import percent_words
from magnetar.reports.drawing.heat import heat_map
from magnetar.reports.environment import page_environment
from magnetar.reports.run_data import flat_settings
from magnetar.reports.samples import comparison_view
from magnetar.reports.sections.blocks import Claim, Figure, Table
from magnetar.reports.sections.matchups import WIN_RATE
from magnetar.reports.sections.training import shown_runs

__all__ = ["comparison_page", "comparison_verdict"]


def comparison_page(result: ComparisonResult, folder: Path | None = None) -> str:
    """The page's text.

    Args:
        result: What was found.
        folder: Of the comparison, for the training curves of its runs; None to leave them out.

    Returns:
        HTML with everything inline.
    """
    rates = rate_range([point.win_rate for points in result.curves.values() for point in points])
    return (
        page_environment()
        .get_template("comparison.html.j2")
        .render(
            title=f"{len(result.rows) - 1} methods at equal budget" if len(result.rows) > 2 else "One method",
            facts=_facts(result),
            result=result,
            claim=_claim(result),
            rates=_rate_figures(result),
            rows=list(enumerate(result.rows, start=1)),
            curves={label: budget_chart(label, result.curves, result.budget_unit, rates) for label in result.curves},
            curve_table=_curve_table(result),
            matrix=heat_map("Win rate of each row against each column", result.labels, result.labels, result.matrix),
            kl=kl_chart(result.rows),
            runs=shown_runs(_run_folders(folder)),
            samples=comparison_view(result),
            confidence=f"{100 * result.confidence:g}%",
            several_seeds=any(len(row.seeds) > 1 for row in result.rows),
            interval=_interval,
            percent_interval=_percent_interval,
            duration=_duration,
            settings=_settings(result),
            versions=result.versions,
        )
    )


def comparison_verdict(result: ComparisonResult) -> str:
    """What the table shows, in plain sentences: who beats the reference, and whether anybody beats all others.

    Args:
        result: What was found.

    Returns:
        One or more sentences.
    """
    methods = [row for row in result.rows if row.win_rate is not None]
    better = [row for row in methods if row.win_rate is not None and (row.win_rate.low or 0.0) > 0.5]
    told = []
    if not better:
        told.append("No method is shown to be better than where training started.")
    elif len(better) == len(methods):
        told.append("Every method beats the reference." if len(methods) > 1 else "It beats the reference.")
    else:
        told.append(f"Better than the reference: {', '.join(row.label for row in better)}.")
    if len(methods) > 1:
        told.append(_best_sentence(result, methods))
    return " ".join(told)


def _best_sentence(result: ComparisonResult, methods: list[MethodRow]) -> str:
    """Whether the line with the highest mean against the others beats each of them."""
    labels = result.labels
    best = max(methods, key=lambda row: -1.0 if row.win_rate_others is None else row.win_rate_others.value)
    cells = result.matrix[labels.index(best.label)]
    ahead, open_ = [], []
    for row in methods:
        cell = cells[labels.index(row.label)]
        if row is not best and cell is not None:
            (ahead if cell.low is not None and cell.low > 0.5 else open_).append(row.label)
    if not open_:
        return f"{best.label} beats every other method, each comparison by itself."
    name = f"{best.label} wins most against the others"
    if not ahead:
        return f"{name}, but is not shown to beat any of them."
    return f"{name} and beats {', '.join(ahead)}, but is not shown to beat {', '.join(open_)}."


def _claim(result: ComparisonResult) -> Claim:
    """The verdict, and the highest win rate against the reference as what it is: the highest."""
    warnings = [*(f"Not in the tables: {line}" for line in result.missing), *result.notes]
    rates = {row.label: row.win_rate for row in result.rows if row.win_rate is not None}
    sentences = [comparison_verdict(result)]
    if not rates:
        return Claim(sentences=sentences, warnings=warnings)
    best = max(rates, key=lambda label: rates[label].value)
    muted = f"The highest of {len(rates)}, picked after the fact: all are below." if len(rates) > 1 else ""
    return Claim(f"Win rate of {best} against the reference", rates[best], sentences, muted, warnings)


def _rate_figures(result: ComparisonResult) -> list[Figure]:
    """Win rates as bars with intervals: the paper's ablation plot, with every method."""
    reference = {row.label: row.win_rate for row in result.rows if row.win_rate is not None}
    others = {row.label: row.win_rate_others for row in result.rows if row.win_rate_others is not None}
    figures = []
    if reference:
        drawing = interval_bars("Win rate of each method against the reference, with intervals", reference, WIN_RATE)
        figures.append(Figure("Against the reference", drawing, unit="win rate"))
    if others:
        drawing = interval_bars("Mean win rate against the other methods, with intervals", others, WIN_RATE)
        figures.append(Figure("Against the other methods", drawing, unit="mean win rate"))
    return figures


def _curve_table(result: ComparisonResult) -> Table:
    """The points of the curves over the budget."""
    rows = [
        [label, f"{point.spent:,.0f}", percent_words(point.win_rate), str(point.runs)]
        for label, points in result.curves.items()
        for point in points
    ]
    return Table(["", result.budget_unit, "win rate", "runs"], rows)


def _run_folders(folder: Path | None) -> dict[str, Path]:
    """Runs of a comparison that have begun, by the names of their folders."""
    places = sorted((folder / "runs").glob("*/metrics.jsonl")) if folder is not None else []
    return {path.parent.name: path.parent for path in places if path.stat().st_size}


def _facts(result: ComparisonResult) -> dict[str, Any]:
    runs = len(result.runs)
    return {
        "Budget of each run": f"{result.budget:,} {result.budget_unit}",
        "Runs": f"{runs}" + (f", {len(result.missing)} missing" if result.missing else ""),
        "Judge in training": result.judge,
        "Judge here": "the same" if result.same_judge else result.eval_judge,
        "Held-out prompts": f"{result.prompts:,}",
        "Responses to each": f"{result.responses}",
    }


def _settings(result: ComparisonResult) -> dict[str, Mapping[str, Any]]:
    shown = dict(result.settings)
    groups = {"Methods": shown.pop("methods", {}), "Training, all methods": shown.pop("settings", {})}
    groups["Evaluation"] = shown.pop("evaluation", {})
    return {"Comparison": flat_settings(shown), **{name: flat_settings(values) for name, values in groups.items()}}


def _interval(estimate: Estimate, digits: int = 1) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.{digits}f} to {estimate.high:.{digits}f}"


def _percent_interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return estimate.note or "no interval"
    return f"{estimate.low:.1%} to {estimate.high:.1%}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
