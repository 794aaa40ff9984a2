"""The plots and the page of a comparison, from its finished cells."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from magnetar.cli.games.cell_files import ComparisonFolder, slug
from magnetar.games.comparison.cells import CellResult, evaluations_to, result_row, summarize
from magnetar.games.comparison.choices import Cell, GameChoice, MethodChoice, display_labels
from magnetar.reports.game_page import GameSection, MethodEntry, write_game_page
from magnetar.reports.gap_plot import GapCurve, draw_gap_plot, draw_profile_plot
from magnetar.reports.simplex_plot import Trajectory, draw_simplex_plot

__all__ = ["draw_comparison"]


def draw_comparison(
    cells: Sequence[Cell],
    results: Mapping[Cell, CellResult],
    failures: Mapping[Cell, str],
    targets: Sequence[float],
    folder: ComparisonFolder,
    formats: Sequence[str],
    command: str,
) -> Path:
    """Draw every plot of a comparison and write its page.

    Args:
        cells: All cells, game by game, each game with the same methods.
        results: Finished cells.
        failures: Why the others failed.
        targets: Gaps that count as solved.
        folder: Where everything goes.
        formats: Forms of the plots; the first is "svg", which the page embeds.
        command: How to repeat the comparison.

    Returns:
        The page's path.

    Raises:
        MagnetarError: Something cannot be written.
    """
    games = list(dict.fromkeys(cell.game for cell in cells))
    choices = list(dict.fromkeys(cell.choice for cell in cells))
    labels = dict(zip(choices, display_labels(choices), strict=True))
    by_place = {(cell.game, cell.choice): cell for cell in cells}
    table = [[results.get(by_place[game, choice]) for choice in choices] for game in games]
    sections = []
    for game, row in zip(tqdm(games, desc="plots", unit="game", disable=not sys.stderr.isatty()), table, strict=True):
        sections.append(_section(game, labels, row, folder, formats))
    profile = None
    if results:
        profile = folder.plots / "profile.svg"
        needed = [
            (labels[choice], [[_needed(row[m], target) for row in table] for target in targets])
            for m, choice in enumerate(choices)
        ]
        budget = max(int(result.evaluations[-1]) for result in results.values())
        for form in formats:
            draw_profile_plot(needed, targets, len(games), budget, profile.with_suffix(f".{form}"))
    return write_game_page(
        folder.path / "index.html",
        command=command,
        updates=cells[0].updates,
        start=cells[0].start,
        targets=targets,
        methods=[_entry(choice, label) for choice, label in labels.items()],
        summaries=summarize(list(labels.values()), table, targets),
        rows=[result_row(cell, results.get(cell), failures.get(cell, ""), targets) for cell in cells],
        labels=[labels[cell.choice] for cell in cells],
        profile=profile,
        sections=sections,
    )


def _needed(result: CellResult | None, target: float) -> float | None:
    return None if result is None else evaluations_to(result, target)


def _entry(choice: MethodChoice, label: str) -> MethodEntry:
    method = choice.method
    return MethodEntry(label, choice.all_settings, method.converges_to, method.source)


def _section(
    game: GameChoice,
    labels: Mapping[MethodChoice, str],
    row: Sequence[CellResult | None],
    folder: ComparisonFolder,
    formats: Sequence[str],
) -> GameSection:
    """The plots of one game."""
    curves, trajectories = [], []
    for (choice, label), result in zip(labels.items(), row, strict=True):
        if result is None:
            continue
        average = result.average_gap if choice.method.converges_to == "average only" else None
        curves.append(GapCurve(label, result.evaluations, result.gap, average))
        if result.policies is not None:
            final = float(result.gap[-1])
            trajectories.append(Trajectory(label, result.policies, result.magnets, result.average_policy, final))
    gap = simplex = None
    name = slug(game.label)
    for form in formats:
        if curves:
            path = folder.plots / f"gap_{name}.{form}"
            title = f"{game.label}, {len(game.actions)} action{'s' if len(game.actions) != 1 else ''}"
            draw_gap_plot(curves, path, title, log_x=True)
            gap = gap or path
        if trajectories:
            path = folder.plots / f"simplex_{name}.{form}"
            draw_simplex_plot(trajectories, game.build(), path)
            simplex = simplex or path
    return GameSection(game.label, len(game.actions), gap, simplex)
