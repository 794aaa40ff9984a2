"""What can be said of a judge's answers about whole groups of responses, without labels."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.measures import plain
from magnetar.evaluation.judging.questions import GroupQuestions
from magnetar.evaluation.judging.resampling import Resampling, estimate_all
from magnetar.evaluation.judging.statistics import count_cycles, ratio, sides

__all__ = ["GroupMeasures", "measure_groups"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class GroupMeasures:
    """A judge on groups of responses.

    Attributes:
        judge: Its name.
        groups: Number of groups.
        pairs: Number of pairs within them, both responses different.
        masked: Pairs that the judge left unanswered.
        ties: Share of answers of one half.
        cycles: Share of answered triples in a circle; None when no group has three responses.
        prefers_longer: Share of pairs of different length in which the judge prefers the longer; ties one half.
        confidence: Nominal coverage of the intervals.
        bootstrap: Resamples behind them; groups are the unit.
        seed: Seed of the resampling.
    """

    judge: str
    groups: int
    pairs: int
    masked: int
    ties: Estimate
    cycles: Estimate | None
    prefers_longer: Estimate
    confidence: float
    bootstrap: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return plain(asdict(self))


def measure_groups(
    judge: str, questions: GroupQuestions, win_prob: list[FloatArray], resampling: Resampling
) -> GroupMeasures:
    """Sum up the answers to groups.

    Args:
        judge: Name of the judge.
        questions: The groups.
        win_prob: The answers, as `magnetar.evaluation.judging.ask_groups` gives them.
        resampling: How intervals are made.

    Returns:
        The figures.
    """
    sums = np.array([_sums(group, matrix) for group, matrix in zip(questions.responses, win_prob, strict=True)])
    pairs, masked, ties, longer, of_other_length = sums.T
    cyclic, triples = np.array([count_cycles(matrix) for matrix in win_prob], dtype=np.float64).T
    found = estimate_all(
        {
            "ties": ratio(ties, pairs - masked, share=True),
            "longer": ratio(longer, of_other_length, share=True),
            "cycles": ratio(cyclic, triples, share=True),
        },
        np.arange(len(sums)),
        resampling,
    )
    return GroupMeasures(
        judge=judge,
        groups=len(sums),
        pairs=int(pairs.sum()),
        masked=int(masked.sum()),
        ties=found["ties"],
        cycles=found["cycles"] if max(map(len, questions.responses)) > 2 else None,
        prefers_longer=found["longer"],
        confidence=resampling.confidence,
        bootstrap=resampling.bootstrap,
        seed=resampling.seed,
    )


def _sums(group: list[str], matrix: FloatArray) -> tuple[float, ...]:
    """Of one group: pairs, masked pairs, ties, verdicts for the longer, pairs of different length."""
    rows, columns = np.triu_indices(len(group), k=1)
    different = np.array([group[i] != group[j] for i, j in zip(rows, columns, strict=True)])
    answer = matrix[rows, columns][different]
    lengths = np.array([len(text) for text in group])
    longer = np.sign(lengths[rows] - lengths[columns])[different]
    known = ~np.isnan(answer)
    side, longer = sides(answer[known]), longer[known]
    towards = ((0.5 + (side - 0.5) * longer) * np.abs(longer)).sum()
    return (
        float(different.sum()),
        float((~known).sum()),
        float((side == 0.5).sum()),
        float(towards),
        float(np.abs(longer).sum()),
    )
