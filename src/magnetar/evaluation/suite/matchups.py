"""From a judge's answers to the figures of a match-up: win rate, outcomes, order, length, categories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import JudgeError
from magnetar.evaluation.asking import JudgedGroups, order_record
from magnetar.evaluation.comparison.crossed import crossed_mean
from magnetar.evaluation.comparison.round_robin import mean_of_answered
from magnetar.evaluation.comparison.tables import IntervalSettings
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.resampling import Resampling
from magnetar.evaluation.judging.statistics import sides
from magnetar.evaluation.length_control import extrapolation, influence_values, length_controlled_rate
from magnetar.evaluation.matchup import Responses, answered_comparisons
from magnetar.evaluation.suite.results import CategoryWinRate, MatchupRecord

__all__ = ["JudgedMatchup", "matchup_record", "rows_by_category"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class JudgedMatchup:
    """A policy's runs against an opponent's runs under one judge.

    Attributes:
        judge: Name of the judge.
        policy: Name of the policy.
        opponent: Name of the opponent.
        policy_runs: Responses of its S runs.
        opponent_runs: Responses of its R runs.
        judged: S lists of R judged match-ups of runs.
    """

    judge: str
    policy: str
    opponent: str
    policy_runs: Sequence[Responses]
    opponent_runs: Sequence[Responses]
    judged: Sequence[Sequence[JudgedGroups]]

    @property
    def win_prob_SRB(self) -> FloatArray:
        """Mean win probability of each prompt and pair of runs; NaN where the judge answered none of its pairs."""
        return np.array([[mean_of_answered(one.win_prob_BGH) for one in row] for row in self.judged])

    def select(self, rows: Sequence[int]) -> "JudgedMatchup":
        """The match-up on some of the prompts."""
        return JudgedMatchup(
            self.judge,
            self.policy,
            self.opponent,
            [run.select(rows) for run in self.policy_runs],
            [run.select(rows) for run in self.opponent_runs],
            [[one.select(rows) for one in row] for row in self.judged],
        )


def matchup_record(
    matchup: JudgedMatchup,
    categories: Mapping[str, Sequence[int]],
    intervals: IntervalSettings,
    *,
    length_control: bool,
) -> MatchupRecord:
    """Reduce a judged match-up to its figures.

    Args:
        matchup: The answers.
        categories: Rows of the prompts of each category.
        intervals: How intervals are made.
        length_control: Whether the win rate at equal length is wanted too.

    Returns:
        The record.

    Raises:
        JudgeError: The judge answered nothing.
    """
    resampling = Resampling(intervals.bootstrap, intervals.confidence, intervals.seed)
    rates = matchup.win_prob_SRB
    answered_B = np.asarray(~np.isnan(rates).any(axis=(0, 1)))
    masked = sum(int(np.isnan(one.win_prob_BGH).sum()) for row in matchup.judged for one in row)
    comparisons = sum(one.win_prob_BGH.size for row in matchup.judged for one in row)
    if not answered_B.any():
        raise JudgeError(
            f"judge {matchup.judge!r} left {masked} of {comparisons} pairs of {matchup.policy!r} and "
            f"{matchup.opponent!r} unanswered, and no prompt is complete, so there is no win rate"
        )
    wins, ties, losses = _outcomes(matchup)
    controlled = _length_controlled(matchup, answered_B, intervals, resampling) if length_control else None
    parts = {name: matchup.select(rows) for name, rows in categories.items()}
    return MatchupRecord(
        judge=matchup.judge,
        policy=matchup.policy,
        opponent=matchup.opponent,
        prompts=int(answered_B.sum()),
        win_rate=intervals.rate(rates),
        wins=wins,
        ties=ties,
        losses=losses,
        comparisons=comparisons - masked,
        masked=masked,
        length_controlled=controlled if isinstance(controlled, Estimate) else None,
        no_length_control=controlled if isinstance(controlled, str) else None,
        orders=order_record([one for row in matchup.judged for one in row], resampling),
        categories={
            name: _category(part, intervals)
            for name, part in parts.items()
            if not np.isnan(part.win_prob_SRB).any(axis=(0, 1)).all()
        },
    )


def rows_by_category(categories: Sequence[str] | None) -> dict[str, list[int]]:
    """Rows of each category, in alphabetical order; empty without categories."""
    if categories is None:
        return {}
    return {name: [row for row, label in enumerate(categories) if label == name] for name in sorted(set(categories))}


def _category(part: JudgedMatchup, intervals: IntervalSettings) -> CategoryWinRate:
    rates = part.win_prob_SRB
    wins, ties, losses = _outcomes(part)
    prompts = int((~np.isnan(rates).any(axis=(0, 1))).sum())
    return CategoryWinRate(prompts, intervals.rate(rates), wins, ties, losses)


def _outcomes(matchup: JudgedMatchup) -> tuple[float, float, float]:
    """Shares of comparisons that are won, tied and lost."""
    outcome = sides(np.concatenate([one.win_prob_BGH.ravel() for row in matchup.judged for one in row]))
    outcome = outcome[~np.isnan(outcome)]
    return float((outcome == 1.0).mean()), float((outcome == 0.5).mean()), float((outcome == 0.0).mean())


def _length_controlled(
    matchup: JudgedMatchup, answered_B: NDArray[np.bool_], intervals: IntervalSettings, resampling: Resampling
) -> Estimate | str:
    """By a bootstrap for one run on each side; over runs and prompts by the spread of the influence values."""
    rows = np.flatnonzero(answered_B).tolist()
    whole = matchup.select(rows)
    single = len(whole.policy_runs) == 1 and len(whole.opponent_runs) == 1
    values, notes = [], []
    for mine, row in zip(whole.policy_runs, whole.judged, strict=True):
        for theirs, judged in zip(whole.opponent_runs, row, strict=True):
            win_prob_N, length_N, cluster_N = answered_comparisons(mine, theirs, judged.win_prob_BGH)
            if single:
                return length_controlled_rate(win_prob_N, length_N, cluster_N, resampling)
            value = influence_values(win_prob_N, length_N, cluster_N)
            if isinstance(value, str):
                return value
            values.append(value)
            notes.append(extrapolation(length_N, cluster_N))
    shape = (len(whole.policy_runs), len(whole.opponent_runs), len(rows))
    found = crossed_mean(
        np.array(values).reshape(shape),
        bounds=(0.0, 1.0),
        bootstrap=intervals.bootstrap,
        confidence=intervals.confidence,
        seed=intervals.seed,
    )
    return replace(found, note=found.note or next((note for note in notes if note is not None), None))
