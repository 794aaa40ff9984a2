"""From answers and win rates to the lines of the table, the matrix and the curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnetar.evaluation.comparison.contestants import REFERENCE, Answers
from magnetar.evaluation.comparison.crossed import crossed_mean
from magnetar.evaluation.comparison.nash import nash_average
from magnetar.evaluation.comparison.results import CurvePoint, MethodRow, RunRow, Spent
from magnetar.evaluation.comparison.round_robin import WinRates
from magnetar.evaluation.degeneracy import Degeneracy, degeneracy
from magnetar.evaluation.intervals import Estimate

__all__ = ["FinishedRun", "IntervalSettings", "curve_points", "method_rows", "run_rows", "win_rate_matrix"]

FloatArray = NDArray[np.float64]
RATE = (0.0, 1.0)
POSITIVE = (0.0, float("inf"))


@dataclass(frozen=True)
class FinishedRun:
    """A run that takes part.

    Attributes:
        label: Its method's label.
        method: Its method's name.
        seed: Its seed.
        name: Of its final policy among the contestants.
        spent: In training.
        points: Policies part of the way: name among the contestants, number of the point from 1, and what had been
            spent of the budget.
        budget_spent: What was spent of the budget at the end.
    """

    label: str
    method: str
    seed: int
    name: str
    spent: Spent
    points: tuple[tuple[str, int, int], ...]
    budget_spent: int


@dataclass(frozen=True)
class IntervalSettings:
    """How intervals are made.

    Attributes:
        bootstrap: Resamples where they are a bootstrap over prompts.
        confidence: Nominal coverage, in (0, 1).
        seed: Of resampling.
    """

    bootstrap: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def rate(self, values: FloatArray) -> Estimate:
        """A win rate; the last axis is prompts, and one that any run has no answer for is left out."""
        return self.mean(values, RATE)

    def mean(self, values: FloatArray, bounds: tuple[float, float] | None = None) -> Estimate:
        """A mean over runs and prompts."""
        answered = ~np.isnan(values).any(axis=tuple(range(values.ndim - 1)))
        if not answered.any():
            return Estimate(float("nan"), None, None, self.confidence, "undefined", "the judge answered nothing")
        return crossed_mean(
            values[..., answered],
            bounds=bounds,
            bootstrap=self.bootstrap,
            confidence=self.confidence,
            seed=self.seed,
        )


def run_rows(runs: Sequence[FinishedRun], rates: WinRates, intervals: IntervalSettings) -> list[RunRow]:
    """One line for each run."""
    return [
        RunRow(run.label, run.seed, intervals.rate(rates.between([run.name], [REFERENCE])[0, 0]), run.spent)
        for run in runs
    ]


def method_rows(
    runs: Sequence[FinishedRun], answers: Mapping[str, Answers], rates: WinRates, intervals: IntervalSettings
) -> list[MethodRow]:
    """One line for each method that has a finished run, in the order of the runs, and the reference last."""
    groups = _groups(runs)
    equilibrium, in_support = _game(groups, rates, intervals.seed)
    rows = []
    for label, group in groups.items():
        names = [run.name for run in group] or [REFERENCE]
        looks = [degeneracy(answers[name].responses.texts) for name in names]
        rows.append(
            MethodRow(
                label=label,
                method=group[0].method if group else "",
                seeds=tuple(run.seed for run in group),
                win_rate=intervals.rate(rates.between(names, [REFERENCE])[:, 0]) if group else None,
                win_rate_others=_against_others(label, groups, rates, intervals),
                kl_nats=intervals.mean(np.stack([answers[name].kl_nats_BG.mean(-1) for name in names]), POSITIVE),
                tokens=intervals.mean(np.stack([_tokens(answers[name]) for name in names]), POSITIVE),
                truncated=float(np.mean([_truncated(answers[name]) for name in names])),
                distinct_2=_mean_distinct(looks),
                looping=float(np.mean([look.looping for look in looks])),
                canned=float(np.mean([look.repeated_across_prompts for look in looks])),
                spent=_mean_spent(group) if group else None,
                equilibrium=float(equilibrium[label]),
                in_support=float(in_support[label]),
            )
        )
    return rows


def win_rate_matrix(
    runs: Sequence[FinishedRun], rates: WinRates, intervals: IntervalSettings
) -> list[list[Estimate | None]]:
    """Win rate of each line's method against each other one's, over all pairs of their runs."""
    groups = _groups(runs)
    return [
        [
            None if first == second else intervals.rate(rates.between(_names(groups, first), _names(groups, second)))
            for second in groups
        ]
        for first in groups
    ]


def curve_points(
    runs: Sequence[FinishedRun], rates: WinRates, intervals: IntervalSettings, count: int
) -> dict[str, list[CurvePoint]]:
    """Win rate against the reference over what had been spent, label by label; the last point is the result."""
    curves: dict[str, list[CurvePoint]] = {}
    for label, group in _groups(runs).items():
        points = []
        for number in range(1, count + 1):
            found = [
                (name, spent)
                for run in group
                for name, at, spent in (*run.points, (run.name, count, run.budget_spent))
                if at == number
            ]
            if found:
                win_rate = intervals.rate(rates.between([name for name, _ in found], [REFERENCE])[:, 0])
                points.append(CurvePoint(float(np.mean([spent for _, spent in found])), win_rate, len(found)))
        if points:
            curves[label] = points
    return curves


def _groups(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Runs by label; the reference, which has none, last."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.label, []).append(run)
    groups[REFERENCE] = []
    return groups


def _names(groups: Mapping[str, Sequence[FinishedRun]], label: str) -> list[str]:
    return [run.name for run in groups[label]] or [REFERENCE]


def _against_others(
    label: str, groups: Mapping[str, Sequence[FinishedRun]], rates: WinRates, intervals: IntervalSettings
) -> Estimate | None:
    """Mean over the other methods; their runs are taken as they are, one's own runs and the prompts as drawn."""
    others = [other for other in groups if other not in (label, REFERENCE)]
    if not others:
        return None
    own = _names(groups, label)
    return intervals.rate(np.mean([rates.between(own, _names(groups, other)).mean(1) for other in others], axis=0))


def _tokens(answers: Answers) -> FloatArray:
    assert answers.responses.tokens_BG is not None
    return answers.responses.tokens_BG.mean(-1)


def _truncated(answers: Answers) -> float:
    assert answers.responses.truncated_BG is not None
    return float(answers.responses.truncated_BG.mean())


def _mean_distinct(looks: Sequence[Degeneracy]) -> float | None:
    known = [look.distinct_2 for look in looks if look.distinct_2 is not None]
    return float(np.mean(known)) if known else None


def _mean_spent(group: Sequence[FinishedRun]) -> Spent:
    def mean(name: str) -> float:
        return float(np.mean([getattr(run.spent, name) for run in group]))

    return Spent(mean("comparisons"), mean("tokens"), mean("updates"), mean("seconds"))


def _game(
    groups: Mapping[str, Sequence[FinishedRun]], rates: WinRates, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The equilibrium of the game between methods, and how often each is part of it."""
    return nash_average({label: _names(groups, label) for label in groups}, rates, seed)
