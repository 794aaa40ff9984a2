"""Costs under cost models: mean, share below zero, their distribution, and by category."""

from collections.abc import Mapping

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import CostRecord, SuiteResult
from magnetar.reports.drawing.bars import Measure, interval_bars
from magnetar.reports.drawing.canvas import percent_words
from magnetar.reports.drawing.distribution import CostHistogram, cost_distributions, number_words
from magnetar.reports.sections.blocks import Figure, Section, Table, confidence_words, judge_title, policy_tones
from magnetar.reports.sections.matchups import category_bars
from magnetar.reports.svg import compact

__all__ = ["cost_histograms", "cost_judges", "cost_records", "cost_sections"]

SAFE = Measure("cost below zero", base=0.0, low=0.0, high=1.0)


def cost_judges(result: SuiteResult) -> list[str]:
    """Cost models, in the order of the suite."""
    return [judge for judge in result.judges if any(one.judge == judge for one in result.costs)]


def cost_records(result: SuiteResult, judge: str) -> dict[str, CostRecord]:
    """Costs under a cost model by policy, in the order of the policies."""
    found = {one.policy: one for one in result.costs if one.judge == judge}
    return {name: found[name] for name in result.policies if name in found}


def cost_histograms(records: Mapping[str, CostRecord]) -> list[CostHistogram]:
    """What is drawn of each policy's costs; nothing of one without responses."""
    return [
        CostHistogram(name, one.histogram.edges, one.histogram.counts, one.mean_cost, one.share_safe)
        for name, one in records.items()
        if sum(one.histogram.counts)
    ]


def cost_sections(result: SuiteResult) -> list[Section]:
    """One section for each cost model.

    Args:
        result: What was found.

    Returns:
        Sections; none without costs.
    """
    judges = cost_judges(result)
    return [_section(result, judge, judges) for judge in judges]


def _section(result: SuiteResult, judge: str, judges: list[str]) -> Section:
    records = cost_records(result, judge)
    histograms = cost_histograms(records)
    figures = []
    if histograms:
        figures.append(
            Figure(
                "Distribution of costs",
                cost_distributions(f"Distribution of costs under {judge}, with a line at zero", histograms),
                hint="Left of the line is safe. Dots are means, with their intervals; all hills have one scale.",
            )
        )
    figures.append(
        Figure(
            "Share below zero",
            interval_bars(
                f"Share of responses with a cost below zero under {judge}",
                {name: one.share_safe for name, one in records.items()},
                SAFE,
                [1] * len(records),
            ),
            unit="higher is safer",
        )
    )
    figures += _by_category(records, judge, policy_tones(result))
    return Section(
        judge_title("Costs", judge, judges),
        f"Costs of the cost model {judge}: lower is safer, below zero is safe. "
        f"{confidence_words([one.mean_cost for one in records.values()])} over prompts.",
        figures=figures,
        tables=[_table(result, records)],
    )


def _table(result: SuiteResult, records: dict[str, CostRecord]) -> Table:
    compared = any(one.change is not None for one in records.values())
    header = ["", "mean cost", "cost below zero", *(["change of the mean", "change below zero"] if compared else [])]
    rows = [
        [name, number_words(one.mean_cost), percent_words(one.share_safe)]
        + ([_or_dash(one.change), points_words(one.change_safe)] if compared else [])
        + [f"{one.prompts:,}"]
        for name, one in records.items()
    ]
    note = f"Changes are against {result.reference}, on the same prompts." if compared and result.reference else ""
    return Table([*header, "prompts"], rows, note)


def points_words(estimate: Estimate | None) -> str:
    """A difference of shares in points, with its interval."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:+.1f} points"
    return f"{100 * estimate.value:+.1f} points ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"


def _or_dash(estimate: Estimate | None) -> str:
    return "–" if estimate is None else number_words(estimate)


def _by_category(records: dict[str, CostRecord], judge: str, tones: dict[str, int]) -> list[Figure]:
    categories = sorted({name for one in records.values() for name in one.categories})
    if not categories:
        return []
    groups = {
        category: {
            name: one.categories[category].mean_cost if category in one.categories else None
            for name, one in records.items()
        }
        for category in categories
    }
    known = [one for cells in groups.values() for one in cells.values() if one is not None]
    ends = [value for one in known for value in (one.value, one.low, one.high) if value is not None]
    measure = Measure(
        "mean cost", 0.0, min([0.0, *ends]), max([0.0, *ends]), compact, lambda value: f"{value:.2f}", number_words
    )
    return category_bars(f"Mean cost by category under {judge}", groups, measure, tones)
