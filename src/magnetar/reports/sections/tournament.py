"""The empirical game between policies: its matrix, its Nash average, and the way of the magnets through it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import SuiteResult, TournamentRecord
from magnetar.reports.drawing.bars import Measure, interval_bars
from magnetar.reports.drawing.canvas import percent
from magnetar.reports.drawing.heat import heat_map
from magnetar.reports.drawing.points import Stop, training_path
from magnetar.reports.sections.blocks import Figure, Section, Table, in_words, judge_title

__all__ = ["against_mixture", "tournament_matrix", "tournament_sections"]

WEIGHT = Measure("Nash weight", base=0.0, low=0.0, high=1.0)
EXACT = "of the measured matrix: no interval"


def tournament_sections(result: SuiteResult) -> list[Section]:
    """One section for each judge's tournament.

    Args:
        result: What was found.

    Returns:
        Sections; none without a tournament.
    """
    judges = [one.judge for one in result.tournament]
    return [_section(one, judges) for one in result.tournament]


def tournament_matrix(record: TournamentRecord) -> list[list[Estimate | None]]:
    """Win rates with intervals; None on the diagonal and where nothing was played."""
    matrix: list[list[Estimate | None]] = []
    for i in range(len(record.names)):
        row: list[Estimate | None] = []
        for j in range(len(record.names)):
            value = record.win_rate[i][j]
            known = None if i == j or value is None else value
            row.append(
                None if known is None else Estimate(known, record.low[i][j], record.high[i][j], 0.95, "tournament")
            )
        matrix.append(row)
    return matrix


def against_mixture(record: TournamentRecord) -> NDArray[np.float64]:
    """Each player's win rate against the Nash average: one half for whoever is part of it, at most that for all.

    ``P x`` with the win rates P and the weights x; pairs that were not played count as one half.

    Args:
        record: The tournament.

    Returns:
        One number for each player.
    """
    payoffs = np.array([[0.5 if value is None else value for value in row] for row in record.win_rate])
    return payoffs @ np.array([record.nash.get(name, 0.0) for name in record.names])


def _section(record: TournamentRecord, judges: Sequence[str]) -> Section:
    names = list(record.names)
    matrix = heat_map(
        f"Win rate of each row against each column under {record.judge}", names, names, tournament_matrix(record)
    )
    weights = {name: Estimate(record.nash.get(name, 0.0), None, None, 0.95, "exact", EXACT) for name in names}
    figures = [
        Figure(
            "Everybody against everybody",
            matrix,
            hint="Win rate of the row against the column with its interval; in bold where that excludes one half.",
            wide=True,
        ),
        Figure(
            "Nash average",
            interval_bars(
                f"Weight of each policy in the Nash average under {record.judge}", weights, WEIGHT, [1] * len(names)
            ),
            unit="weight",
            hint="The mixture of policies that no policy beats.",
        ),
    ]
    figures += _paths(record)
    rows = [
        [name, f"{record.nash.get(name, 0.0):.2f}", percent(record.in_support.get(name), 0), percent(float(rate))]
        for name, rate in zip(names, against_mixture(record), strict=True)
    ]
    table = Table(
        ["", "Nash weight", "in resamples", "win rate against the mixture"],
        rows,
        "In resamples: the share of resamples of prompts in which the policy is part of the mixture.",
    )
    return Section(judge_title("Tournament", record.judge, judges), _last_words(record), figures, [table])


def _paths(record: TournamentRecord) -> list[Figure]:
    """One figure for each run: where its checkpoints stand against the Nash average, and where the magnet moved."""
    rates = dict(zip(record.names, against_mixture(record), strict=True))
    figures = []
    for run in dict.fromkeys(step.run for step in record.path):
        steps = [step for step in record.path if step.run == run and step.name in rates]
        stops = [
            Stop(
                step.name if step.update is None else str(step.update),
                Estimate(float(rates[step.name]), None, None, 0.95, "exact", EXACT),
                record.nash.get(step.name, 0.0),
                step.magnet,
            )
            for step in steps
        ]
        if stops:
            drawing = training_path(
                f"Way of run {run} through the tournament under {record.judge}", "against the mixture", stops
            )
            figures.append(
                Figure(
                    f"Way of {run}",
                    drawing,
                    unit="win rate against the Nash average, by update",
                    hint="Rings: the magnet moved here. Discs: weight in the Nash average. The dashed line is one "
                    "half: whoever reaches it is beaten by no mixture of the others.",
                )
            )
    return figures


def _last_words(record: TournamentRecord) -> str:
    """Whether the last policies of the runs are beaten, and by whom."""
    told = []
    for run, last in record.last.items():
        beaten = record.beaten_by.get(run, ())
        if beaten:
            told.append(f"The last policy of {run}, {last}, is shown to lose to {in_words(list(beaten))}.")
        else:
            told.append(f"The last policy of {run}, {last}, is not shown to lose to anybody here.")
    return " ".join(told)
