"""Measuring a policy against an opponent: match-ups, win rates with intervals, and what to distrust in them."""

from magnetar.evaluation.degeneracy import Degeneracy, degeneracy
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.matchup import Matchup, Responses, sample_records
from magnetar.evaluation.record import evaluation_record, package_versions, write_evaluation
from magnetar.evaluation.summary import CategorySummary, MatchupSummary, SideSummary, summarize
from magnetar.evaluation.suspicions import suspicions

__all__ = [
    "CategorySummary",
    "Degeneracy",
    "Estimate",
    "Matchup",
    "MatchupSummary",
    "Responses",
    "SideSummary",
    "degeneracy",
    "evaluation_record",
    "package_versions",
    "sample_records",
    "summarize",
    "suspicions",
    "write_evaluation",
]
