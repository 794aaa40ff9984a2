"""Everybody against everybody: the empirical game, its Nash average, and how a run's path fares in it."""

from collections.abc import Mapping, Sequence

import numpy as np

from magnetar.evaluation.comparison.nash import nash_average
from magnetar.evaluation.comparison.round_robin import WinRates
from magnetar.evaluation.comparison.tables import IntervalSettings
from magnetar.evaluation.suite.results import PathStep, TournamentRecord

__all__ = ["tournament_record"]


def tournament_record(
    judge: str,
    members: Mapping[str, Sequence[str]],
    rates: WinRates,
    path: Sequence[PathStep],
    intervals: IntervalSettings,
) -> TournamentRecord:
    """Make a game of win rates and solve it.

    Args:
        judge: Name of the judge.
        members: Player → names of its runs among the win rates, at least two players.
        rates: Win rates of all pairs of runs.
        path: Players that are checkpoints of runs, in the order of training.
        intervals: How intervals are made; they are not adjusted for looking at several.

    Returns:
        The record. A run's last policy is "beaten by" a player whose win rate against it has an interval above one
        half.
    """
    names = tuple(members)
    estimates = [
        [None if a == b else intervals.rate(rates.between(members[a], members[b])) for b in names] for a in names
    ]
    known = [[one is not None and not np.isnan(one.value) for one in row] for row in estimates]
    nash, in_support = nash_average(members, rates, intervals.seed)
    lows = tuple(tuple(None if one is None else one.low for one in row) for row in estimates)
    last = {step.run: step.name for step in path}
    return TournamentRecord(
        judge=judge,
        names=names,
        win_rate=tuple(
            tuple(
                0.5 if i == j else (one.value if one is not None and known[i][j] else None) for j, one in enumerate(row)
            )
            for i, row in enumerate(estimates)
        ),
        low=lows,
        high=tuple(tuple(None if one is None else one.high for one in row) for row in estimates),
        nash=nash,
        in_support=in_support,
        path=tuple(path),
        last=last,
        beaten_by={
            run: tuple(
                other for i, other in enumerate(names) if (low := lows[i][names.index(name)]) is not None and low > 0.5
            )
            for run, name in last.items()
        },
    )
