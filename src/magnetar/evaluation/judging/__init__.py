"""How good a judge is: accuracy with intervals, calibration, order, cycles, length; agreement of two judges."""

from magnetar.evaluation.judging.agreement import Agreement, measure_agreement
from magnetar.evaluation.judging.cycles import CycleShare, measure_cycles, response_groups
from magnetar.evaluation.judging.evaluate import evaluate_judge, measure_judge
from magnetar.evaluation.judging.measures import JudgeEvaluation, LabelMeasures
from magnetar.evaluation.judging.pairs import JudgedPairs, Pairs, ask_groups, ask_pairs
from magnetar.evaluation.judging.resampling import Resampling
from magnetar.evaluation.judging.statistics import count_cycles, group_payoffs

__all__ = [
    "Agreement",
    "CycleShare",
    "JudgeEvaluation",
    "JudgedPairs",
    "LabelMeasures",
    "Pairs",
    "Resampling",
    "ask_groups",
    "ask_pairs",
    "count_cycles",
    "evaluate_judge",
    "group_payoffs",
    "measure_agreement",
    "measure_cycles",
    "measure_judge",
    "response_groups",
]
