"""How far two judges, or a judge and labels, say the same."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from magnetar.errors import DataError, JudgeError
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.measures import plain
from magnetar.evaluation.judging.pairs import FloatArray, JudgedPairs, prompt_numbers
from magnetar.evaluation.judging.resampling import Resampling, estimate_all
from magnetar.evaluation.judging.statistics import mean, mirrored_kappa, mirrored_pearson, mirrored_spearman, sides

__all__ = ["LABELS", "Agreement", "measure_agreement"]

LABELS = "labels"


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same pairs, or a judge and labels.

    Kappa and the correlations look at each pair in both orders, so that they do not depend on which response stands
    first in the file.

    Attributes:
        judge: Name of the one.
        against: Name of the other, or "labels".
        pairs: Pairs that both answered: those of all figures.
        prompts: Distinct prompts among them.
        masked: Pairs that the judge left unanswered.
        masked_against: Pairs that the other left unanswered.
        agreement: Share of pairs on whose side both agree; a tie of one against a win of the other counts one half.
        strict_agreement: The same with such a pair counted zero.
        kappa: Cohen's kappa with linear weights over "second", "tie", "first": what belongs to ``agreement``. Without
            ties it is ``2 · agreement − 1``.
        strict_kappa: Cohen's kappa without weights.
        spearman: Rank correlation of the two win probabilities.
        pearson: Linear correlation of the two.
        difference: Mean absolute difference of the two.
        ties: Share of ties of the judge.
        ties_against: Share of ties of the other.
        flips: Share of pairs whose winner changes with the order; None for a judge without an order.
        flips_against: Likewise of the other; None for labels.
        confidence: Nominal coverage of the intervals.
        bootstrap: Resamples behind them; prompts are the unit.
        seed: Seed of the resampling.
    """

    judge: str
    against: str
    pairs: int
    prompts: int
    masked: int
    masked_against: int
    agreement: Estimate
    strict_agreement: Estimate
    kappa: Estimate
    strict_kappa: Estimate
    spearman: Estimate
    pearson: Estimate
    difference: Estimate
    ties: Estimate
    ties_against: Estimate
    flips: Estimate | None
    flips_against: Estimate | None
    confidence: float
    bootstrap: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return plain(asdict(self))


def measure_agreement(
    judged: JudgedPairs, against: JudgedPairs | None = None, *, resampling: Resampling | None = None
) -> Agreement:
    """Compare a judge's answers with another's, or with the labels of its pairs.

    A judge whose answer depends on the order it is asked in counts with the mean of both orders.

    Args:
        judged: The judge's answers.
        against: Another judge's answers to the same pairs; None for the labels.
        resampling: How intervals are made.

    Returns:
        The figures.

    Raises:
        DataError: There are no labels, or the other's answers are to other pairs.
        JudgeError: There is no pair that both answered.
    """
    resampling = resampling or Resampling()
    ours, theirs = _answers(judged), _other(judged, against)
    both = ~np.isnan(ours) & ~np.isnan(theirs)
    name = LABELS if against is None else against.judge
    if not both.any():
        raise JudgeError(f"judge {judged.judge!r} and {name!r} have no answered pair in common, of {len(both)}")
    p, q = ours[both], theirs[both]
    side_p, side_q = sides(p), sides(q)
    rows = np.flatnonzero(both)
    cluster_N = prompt_numbers([judged.pairs.prompts[row] for row in rows.tolist()])
    statistics = {
        "agreement": mean(1.0 - np.abs(side_p - side_q), share=True),
        "strict_agreement": mean((side_p == side_q).astype(np.float64), share=True),
        "kappa": mirrored_kappa(side_p, side_q),
        "strict_kappa": mirrored_kappa(side_p, side_q, linear=False),
        "spearman": mirrored_spearman(p - 0.5, q - 0.5),
        "pearson": mirrored_pearson(p - 0.5, q - 0.5),
        "difference": mean(np.abs(p - q), share=True),
        "ties": mean((side_p == 0.5).astype(np.float64), share=True),
        "ties_against": mean((side_q == 0.5).astype(np.float64), share=True),
    }
    flips = {"flips": judged, "flips_against": against}
    for key, one in flips.items():
        if one is not None and one.backward_N is not None:
            flipped = np.abs(sides(one.forward_N[rows]) - sides(one.backward_N[rows])) == 1.0
            statistics[key] = mean(flipped.astype(np.float64), share=True)
    found: dict[str, Any] = {"flips": None, "flips_against": None, **estimate_all(statistics, cluster_N, resampling)}
    return Agreement(
        judge=judged.judge,
        against=name,
        pairs=len(rows),
        prompts=int(cluster_N.max()) + 1,
        masked=int(np.isnan(ours).sum()),
        masked_against=int(np.isnan(theirs).sum()),
        confidence=resampling.confidence,
        bootstrap=resampling.bootstrap,
        seed=resampling.seed,
        **found,
    )


def _answers(judged: JudgedPairs) -> FloatArray:
    return judged.answers_NK.mean(1)


def _other(judged: JudgedPairs, against: JudgedPairs | None) -> FloatArray:
    if against is None:
        if judged.pairs.label_N is None:
            raise DataError(
                "the pairs have no labels to compare with; give preference data (chosen and rejected, or a column "
                "win_prob), or a second judge"
            )
        return judged.pairs.label_N
    same = (
        list(judged.pairs.first) == list(against.pairs.first)
        and list(judged.pairs.second) == list(against.pairs.second)
        and list(judged.pairs.prompts) == list(against.pairs.prompts)
    )
    if not same:
        raise DataError(f"judges {judged.judge!r} and {against.judge!r} answered different pairs; ask both the same")
    return _answers(against)
