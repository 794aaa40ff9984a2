"""Which figures a suite or a comparison has, and their files."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from magnetar.errors import DataError
from magnetar.evaluation.comparison.results import ComparisonResult
from magnetar.evaluation.suite import SuiteResult, read_suite
from magnetar.reports.comparison_files import read_comparison
from magnetar.reports.drawing.radar import MIN_AXES
from magnetar.reports.figures import plots
from magnetar.reports.folders import kind_of
from magnetar.reports.pipeline_data import COMPARISON_FILE, read_pipeline
from magnetar.reports.pipeline_page import suite_groups
from magnetar.reports.sections.attacks import attack_matrices
from magnetar.reports.sections.costs import cost_histograms, cost_judges, cost_records
from magnetar.reports.sections.distances import rates_by_distance
from magnetar.reports.sections.exploitability import attacker_curves, strongest_attackers
from magnetar.reports.sections.matchups import by_category, matchup_judges, shown_matchups
from magnetar.reports.sections.tournament import tournament_matrix

__all__ = ["figure_names", "write_figures"]

Plans = dict[str, Callable[[Path], None]]


def write_figures(place: Path, folder: Path, forms: Sequence[str] = ("svg",)) -> list[Path]:
    """Write every figure for which a folder has data.

    Args:
        place: Folder of a suite, a comparison or a pipeline, or a file of the first two.
        folder: Where to write; made if need be.
        forms: "svg", "pdf", "png".

    Returns:
        The files.

    Raises:
        DataError: The folder holds nothing to draw, a file is damaged, or the folder cannot be made.
        ConfigError: A file cannot be written.
    """
    plans = _plans(Path(place))
    if not plans:
        raise DataError(f"{str(place)!r} has nothing to draw; figures are made of suites, comparisons and pipelines")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {str(folder)!r} ({error}); choose another place") from error
    paths = []
    for name, draw in plans.items():
        for form in forms:
            path = folder / f"{name}.{form}"
            draw(path)
            paths.append(path)
    return paths


def figure_names(place: Path) -> list[str]:
    """Names of the figures that `write_figures` would write, without their suffix."""
    return list(_plans(Path(place)))


def _plans(place: Path) -> Plans:
    kind = kind_of(place)
    if kind == "suite":
        return _suite_plans(read_suite(place))
    if kind == "comparison":
        return _comparison_plans(read_comparison(place if place.is_file() else place / COMPARISON_FILE))
    plans: Plans = {}
    if kind == "pipeline":
        data = read_pipeline(place)
        suites = suite_groups(data)
        for stage, one in suites.items():
            plans |= _prefixed(_suite_plans(one), stage if len(suites) > 1 else "")
        for path in data.comparisons:
            plans |= _prefixed(_comparison_plans(read_comparison(path)), path.parent.name)
    return plans


def _prefixed(plans: Plans, name: str) -> Plans:
    return {f"{_file_name(name)}-{key}" if name else key: draw for key, draw in plans.items()}


def _suite_plans(result: SuiteResult) -> Plans:
    plans: Plans = {}
    judges = matchup_judges(result)
    for judge in judges:
        shown, whom = shown_matchups(result, judge)
        end = f"-{_file_name(judge)}" if len(judges) > 1 else ""
        rates = {name: one.win_rate for name, one in shown.items()}
        plans[f"ablation{end}"] = partial(plots.draw_bars, entries=rates, label=f"win rate{whom}")
        points = rates_by_distance(result, judge)
        if points:
            plans[f"distance{end}"] = partial(plots.draw_distances, points=points, label=f"win rate{whom}")
        outcomes = {name: (one.wins, one.ties, one.losses) for name, one in shown.items()}
        plans[f"outcomes{end}"] = partial(plots.draw_outcomes, entries=outcomes)
        groups = by_category(shown)
        if groups:
            plans[f"categories{end}"] = partial(plots.draw_groups, groups=groups, label=f"win rate{whom}")
        if len(groups) >= MIN_AXES:
            series = {
                name: [None if (one := cells.get(name)) is None else one.value for cells in groups.values()]
                for name in shown
                if any(cells.get(name) for cells in groups.values())
            }
            plans[f"radar{end}"] = partial(plots.draw_radar, categories=list(groups), series=series)
    costs = cost_judges(result)
    for judge in costs:
        histograms = cost_histograms(cost_records(result, judge))
        if histograms:
            plans[f"costs-{_file_name(judge)}" if len(costs) > 1 else "costs"] = partial(
                plots.draw_costs, histograms=histograms
            )
    for one in result.tournament:
        end = f"-{_file_name(one.judge)}" if len(result.tournament) > 1 else ""
        plans[f"payoffs{end}"] = partial(
            plots.draw_matrix, rows=one.names, columns=one.names, matrix=tournament_matrix(one)
        )
    matrices = attack_matrices(result)
    for title, (rows, columns, matrix) in matrices.items():
        end = f"-{_file_name(title)}" if len(matrices) > 1 else ""
        plans[f"attacks{end}"] = partial(
            plots.draw_matrix, rows=rows, columns=columns, matrix=matrix, around_half=False
        )
    if result.exploitability:
        plans["exploitability"] = partial(
            plots.draw_bars, entries=strongest_attackers(result), label="win rate of the strongest attacker found"
        )
        curves = attacker_curves(result)
        for number, (places, series) in enumerate(curves.values(), start=1):
            end = f"-{number}" if len(curves) > 1 else ""
            plans[f"attackers{end}"] = partial(
                plots.draw_points, places=places, series=series, label="win rate of the attacker"
            )
    return plans


def _comparison_plans(result: ComparisonResult) -> Plans:
    rates = {row.label: row.win_rate for row in result.rows if row.win_rate is not None}
    plans: Plans = {}
    if rates:
        plans["ablation"] = partial(plots.draw_bars, entries=rates, label="win rate against the reference")
    points = {row.label: (row.kl_nats, row.win_rate) for row in result.rows if row.win_rate is not None}
    if points:
        plans["distance"] = partial(plots.draw_distances, points=points, label="win rate against the reference")
    plans["payoffs"] = partial(plots.draw_matrix, rows=result.labels, columns=result.labels, matrix=result.matrix)
    return plans


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "figure"
