"""Win rates: against the reference and against each other, outcomes, ablations, and by category."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import MatchupRecord, SuiteResult
from magnetar.reports.drawing.bars import Measure, grouped_bars, interval_bars, outcome_bars
from magnetar.reports.drawing.canvas import percent, percent_words
from magnetar.reports.drawing.heat import heat_map
from magnetar.reports.drawing.radar import MIN_AXES, radar
from magnetar.reports.sections.blocks import Figure, Section, Table, confidence_words, judge_title, policy_tones

__all__ = [
    "WIN_RATE",
    "against",
    "by_category",
    "category_bars",
    "category_sections",
    "matchup_judges",
    "matchup_sections",
    "shown_matchups",
]

WIN_RATE = Measure("win rate", base=0.5, low=0.4, high=0.6)
BARS_IN_A_FIGURE = 18
RADAR_TOGETHER = 4  # more polygons than this hide each other
PART_LETTERS = "One line at a time: among many, some miss by chance."


def matchup_judges(result: SuiteResult) -> list[str]:
    """Judges with match-ups, in the order of the suite."""
    return [judge for judge in result.judges if any(one.judge == judge for one in result.matchups)]


def against(result: SuiteResult, judge: str, opponent: str | None) -> dict[str, MatchupRecord]:
    """Match-ups under a judge by policy: those with one opponent, or all, by both names.

    Args:
        result: What was found.
        judge: Name of the judge.
        opponent: Name of the opponent; None for every match-up, named "policy against opponent".

    Returns:
        Match-ups in the order of the policies.
    """
    order = {name: at for at, name in enumerate(result.policies)}
    found = [one for one in result.matchups if one.judge == judge and opponent in (None, one.opponent)]
    found.sort(key=lambda one: (order.get(one.policy, 0), order.get(one.opponent, 0)))
    if opponent is not None:
        return {one.policy: one for one in found}
    return {f"{one.policy} against {one.opponent}": one for one in found}


def matchup_sections(result: SuiteResult) -> list[Section]:
    """One section for each judge: rates with intervals, outcomes, the table, and the matrix of several opponents.

    Args:
        result: What was found.

    Returns:
        Sections; none without match-ups.
    """
    judges = matchup_judges(result)
    return [_section(result, judge, judges) for judge in judges]


def _section(result: SuiteResult, judge: str, judges: Sequence[str]) -> Section:
    shown, whom = shown_matchups(result, judge)
    rates = {name: one.win_rate for name, one in shown.items()}
    figures = [
        Figure(
            f"Win rate{whom}",
            interval_bars(f"Win rate{whom} under {judge}, with intervals", rates, WIN_RATE),
            hint="Bars begin at one half; a whisker that crosses the dashed line shows no difference.",
        )
    ]
    controlled = {name: one.length_controlled for name, one in shown.items()}
    if any(one is not None for one in controlled.values()):
        groups = {
            name: {"as it is": one.win_rate, "at equal length": one.length_controlled} for name, one in shown.items()
        }
        figures.append(
            Figure(
                "What length does",
                grouped_bars(f"Win rate{whom}, as it is and at equal length, under {judge}", groups, WIN_RATE),
                legend=("as it is", "at equal length"),
                hint="A policy that falls at equal length won by length.",
            )
        )
    outcomes = {name: (one.wins, one.ties, one.losses) for name, one in shown.items()}
    figures.append(
        Figure(
            "Won, tied, lost",
            outcome_bars(f"Shares of comparisons won, tied and lost{whom} under {judge}", outcomes),
            unit="share of comparisons",
            hint="Left to right: won, tied, lost.",
        )
    )
    matrix = _matrix(result, judge)
    if matrix is not None:
        figures.append(matrix)
    every = against(result, judge, None)
    intro = (
        f"{confidence_words(list(rates.values()))} over prompts (and seeds, where there are several). {PART_LETTERS}"
    )
    return Section(judge_title("Win rates", judge, judges), intro, figures, [_table(every)])


def shown_matchups(result: SuiteResult, judge: str) -> tuple[dict[str, MatchupRecord], str]:
    """What is drawn: match-ups against the reference if there are any, else all.

    Args:
        result: What was found.
        judge: Name of the judge.

    Returns:
        Match-ups by name, and the words " against " with the reference's name, or none.
    """
    if result.reference is not None:
        found = against(result, judge, result.reference)
        if found:
            return found, f" against {result.reference}"
    return against(result, judge, None), ""


def _table(records: Mapping[str, MatchupRecord]) -> Table:
    opponents = {one.opponent for one in records.values()}
    controlled = any(one.length_controlled or one.no_length_control for one in records.values())
    ordered = any(one.orders for one in records.values())
    masked = any(one.masked for one in records.values())
    header = ["", "win rate", *(["at equal length"] if controlled else []), "won", "tied", "lost", "prompts"]
    header += [*(["shown first wins", "winner changes with the order"] if ordered else [])]
    header += ["unanswered"] if masked else []
    rows = []
    for name, one in records.items():
        row = [one.policy if len(opponents) == 1 else name, percent_words(one.win_rate)]
        if controlled:
            row.append(percent_words(one.length_controlled) if one.length_controlled else one.no_length_control or "–")
        row += [percent(one.wins), percent(one.ties), percent(one.losses), f"{one.prompts:,}"]
        if ordered:
            row += (
                ["–", "–"]
                if one.orders is None
                else [percent_words(one.orders.first_place), percent(one.orders.flip_rate)]
            )
        row += [f"{one.masked:,}"] if masked else []
        rows.append(row)
    return Table(header, rows, f"Against {next(iter(opponents))}." if len(opponents) == 1 else "")


def _matrix(result: SuiteResult, judge: str) -> Figure | None:
    """The payoff matrix, where more than one opponent was played and no tournament shows it anyway."""
    records = [one for one in result.matchups if one.judge == judge]
    if len({one.opponent for one in records}) < 2 or any(one.judge == judge for one in result.tournament):
        return None
    cells: dict[tuple[str, str], Estimate] = {}
    for one in records:
        cells[one.policy, one.opponent] = one.win_rate
        cells.setdefault((one.opponent, one.policy), mirrored(one.win_rate))
    names = [name for name in result.policies if any(name in pair for pair in cells)]
    matrix = [[cells.get((row, column)) for column in names] for row in names]
    return Figure(
        "Everybody against everybody",
        heat_map(f"Win rate of each row against each column under {judge}", names, names, matrix),
        hint="Win rate of the row against the column with its interval; in bold where that excludes one half.",
        wide=True,
    )


def mirrored(rate: Estimate) -> Estimate:
    """The other side's win rate."""
    low = None if rate.high is None else 1.0 - rate.high
    high = None if rate.low is None else 1.0 - rate.low
    return Estimate(1.0 - rate.value, low, high, rate.confidence, rate.method, rate.note)


def category_sections(result: SuiteResult) -> list[Section]:
    """Win rates by category as radar and as bars, one section for each judge.

    Args:
        result: What was found.

    Returns:
        Sections; none without categories.
    """
    judges, sections = matchup_judges(result), []
    for judge in judges:
        shown, whom = shown_matchups(result, judge)
        groups = by_category(shown)
        if not groups:
            continue
        names = list(next(iter(groups.values())))
        tones = policy_tones(result)
        figures = radars(f"Win rate{whom} by category under {judge}", groups, names, tones)
        figures += category_bars(f"Win rate{whom} by category under {judge}, with intervals", groups, WIN_RATE, tones)
        counts = {
            category: max(one.categories[category].prompts for one in shown.values() if category in one.categories)
            for category in groups
        }
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        intro = f"Prompts: {told}. Intervals are for one category at a time: among several, one may miss by chance."
        sections.append(Section(judge_title("By category", judge, judges), intro, figures=figures))
    return sections


def by_category(shown: Mapping[str, MatchupRecord]) -> dict[str, dict[str, Estimate | None]]:
    """Win rate by name, by category in alphabetical order; empty without categories."""
    with_categories = {name: one for name, one in shown.items() if one.categories}
    return {
        category: {
            name: one.categories[category].win_rate if category in one.categories else None
            for name, one in with_categories.items()
        }
        for category in sorted({name for one in with_categories.values() for name in one.categories})
    }


def radars(
    title: str,
    groups: Mapping[str, Mapping[str, Estimate | None]],
    names: Sequence[str],
    tones: Mapping[str, int],
) -> list[Figure]:
    """Up to four policies in one radar, more side by side; none with fewer than three categories.

    Args:
        title: What is drawn.
        groups: Win rate by policy, by category.
        names: The policies.
        tones: Their colours.

    Returns:
        Figures.
    """
    if len(groups) < MIN_AXES:
        return []
    values = {
        name: [None if (one := cells.get(name)) is None else one.value for cells in groups.values()] for name in names
    }
    hint = "The dashed ring is one half. Bars beside it show how sure each value is."
    if len(names) <= RADAR_TOGETHER:
        own = [tones[name] for name in names]
        return [Figure("Radar", radar(title, list(groups), values, own), legend=names, tones=own, hint=hint)]
    every = [value for series in values.values() for value in series if value is not None]
    return [
        Figure(name, radar(f"{title}: {name}", list(groups), {name: values[name]}, [tones[name]], every), hint=hint)
        for name in names
    ]


def category_bars(
    title: str,
    groups: Mapping[str, Mapping[str, Estimate | None]],
    measure: Measure,
    tones: Mapping[str, int],
) -> list[Figure]:
    """Bars by category, a few categories in each figure, all on one scale.

    Args:
        title: What is drawn.
        groups: Values by policy, by category.
        measure: What they are.
        tones: Colours of the policies.

    Returns:
        Figures.
    """
    known = [one for cells in groups.values() for one in cells.values() if one is not None]
    scale, _ = measure.scale(known, 0.0, 1.0)
    shared = replace(measure, low=scale.low, high=scale.high)
    names = list(dict.fromkeys(name for cells in groups.values() for name in cells))
    categories = list(groups)
    each = max(1, BARS_IN_A_FIGURE // len(names))
    parts = [categories[start : start + each] for start in range(0, len(categories), each)]
    return [
        Figure(
            f"{part[0]} to {part[-1]}" if len(part) > 1 else part[0],
            grouped_bars(f"{title}: {', '.join(part)}", {name: groups[name] for name in part}, shared, tones),
            unit=measure.name,
            legend=names,
            tones=[tones[name] for name in names],
        )
        for part in parts
    ]
