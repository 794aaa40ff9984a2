"""Weighted figures of pairs: means, correlations, kappa, calibration. Each takes weights (R, N) and returns R values.

A pair (first, second) with P is the same statement as (second, first) with 1 − P. Which response stands first in a
file is an accident, or, where "chosen" always does, a giveaway. So correlations and kappa look at each pair in both
orders, *mirrored*: no figure depends on the order of the file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnetar.evaluation.judging.resampling import FloatArray, IndexArray, Statistic

__all__ = [
    "Bins",
    "bin_edges",
    "calibration_error",
    "count_cycles",
    "group_payoffs",
    "mean",
    "mirrored_kappa",
    "mirrored_pearson",
    "mirrored_spearman",
    "ratio",
    "reliability",
    "sides",
]

_Pick = Callable[[FloatArray, FloatArray], FloatArray]

TIE = 1e-9
"""A win probability this near to one half is a tie."""
ROUND = 12
"""Decimals kept where equal probabilities must be recognised: 1 − 0.8 is not 0.2 in binary."""


def sides(win_prob: FloatArray) -> FloatArray:
    """Who wins: 1 the first, 0 the second, 1/2 a tie (within 1e-9); NaN stays.

    Args:
        win_prob: Any shape, in [0, 1].

    Returns:
        The same shape.
    """
    return np.where(np.abs(win_prob - 0.5) <= TIE, 0.5, np.where(np.isnan(win_prob), np.nan, win_prob > 0.5))


def count_cycles(win_prob: FloatArray) -> tuple[int, int]:
    r"""Count cyclic triples and triples of one group; a triple with a masked pair is no triple.

    With W the matrix of strict wins and K that of known answers off the diagonal, the cyclic triples number
    ``trace(W³) / 3`` and the triples ``trace(K³) / 6``.

    Args:
        win_prob: Shape (G, G), in [0, 1] or NaN, ``P + Pᵀ = 1``.

    Returns:
        Cyclic triples, triples.
    """
    known = (~np.isnan(win_prob) & ~np.eye(len(win_prob), dtype=bool)).astype(np.float64)
    wins = np.where(np.isnan(win_prob), 0.0, win_prob > 0.5)
    return round(np.trace(wins @ wins @ wins) / 3.0), round(np.trace(known @ known @ known) / 6.0)


def group_payoffs(win_prob: FloatArray) -> FloatArray:
    r"""Mean win probability of each response against the others of its group, ``q̂_i = mean_{j≠i} P(i beats j)``.

    Args:
        win_prob: Shape (G, G), in [0, 1]; NaN for pairs that the judge left unanswered.

    Returns:
        Shape (G,); NaN for a response none of whose comparisons was answered.
    """
    known = ~np.isnan(win_prob) & ~np.eye(len(win_prob), dtype=bool)
    return _divide(np.where(known, win_prob, 0.0).sum(1), known.sum(1).astype(np.float64))


def mean(value_N: FloatArray, *, share: bool = False) -> Statistic:
    """Weighted mean."""
    return ratio(value_N, np.ones(len(value_N)), share=share)


def ratio(top_N: FloatArray, bottom_N: FloatArray, *, share: bool = False) -> Statistic:
    """Ratio of two weighted sums; NaN where the lower one is zero.

    Args:
        top_N: Numerators.
        bottom_N: Denominators, at least 0.
        share: Whether each numerator lies between 0 and its denominator.
    """

    def compute(weights_RN: FloatArray) -> FloatArray:
        return _divide(weights_RN @ top_N, weights_RN @ bottom_N)

    return Statistic(compute, share)


def mirrored_pearson(x_N: FloatArray, y_N: FloatArray) -> Statistic:
    r"""Pearson correlation of the pairs in both orders.

    Mirroring puts both means at the middle, so that ``r = Σ w x y / √(Σ w x² Σ w y²)``.

    Args:
        x_N: Values that change sign when the responses are exchanged: ``P − 1/2``, or a difference of lengths.
        y_N: Likewise.

    Returns:
        The statistic; NaN where either is zero throughout.
    """
    products = np.stack([x_N * y_N, x_N * x_N, y_N * y_N], axis=1)

    def compute(weights_RN: FloatArray) -> FloatArray:
        xy, xx, yy = (weights_RN @ products).T
        return _divide(xy, np.sqrt(xx * yy))

    return Statistic(compute)


def mirrored_spearman(x_N: FloatArray, y_N: FloatArray) -> Statistic:
    """Spearman's rank correlation of the pairs in both orders, ties with their mean rank.

    Args:
        x_N: Values that change sign when the responses are exchanged.
        y_N: Likewise.

    Returns:
        The statistic; NaN where either is zero throughout.
    """
    rank_x, rank_y = _MirroredRanks(x_N), _MirroredRanks(y_N)

    def compute(weights_RN: FloatArray) -> FloatArray:
        x, y = rank_x(weights_RN), rank_y(weights_RN)
        xy, xx, yy = ((weights_RN * a * b).sum(1) for a, b in ((x, y), (x, x), (y, y)))
        return _divide(xy, np.sqrt(xx * yy))

    return Statistic(compute)


class _MirroredRanks:
    """Weighted mid-ranks of values and their negatives together, counted from the middle: odd, like the values."""

    def __init__(self, value_N: FloatArray) -> None:
        value_N = np.round(value_N, ROUND)
        self.sign_N = np.sign(value_N)
        # The rank of x from the middle depends on |x| alone: half the weight of what is nearer, plus half its own tie.
        self.order = np.argsort(np.abs(value_N), kind="stable")
        ordered = np.abs(value_N)[self.order]
        self.start = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        self.tie_of = np.empty(len(value_N), dtype=np.intp)
        self.tie_of[self.order] = np.repeat(np.arange(len(self.start)), np.diff(self.start, append=len(ordered)))

    def __call__(self, weights_RN: FloatArray) -> FloatArray:
        tied = np.add.reduceat(weights_RN[:, self.order], self.start, axis=1)
        # Mirrored values: a tie at |x| has its weight once on each side; one at zero has it twice in the middle.
        nearer = np.cumsum(tied, axis=1) - tied
        from_middle = nearer + tied / 2.0
        return self.sign_N * from_middle[:, self.tie_of]


def mirrored_kappa(side_a_N: FloatArray, side_b_N: FloatArray, *, linear: bool = True) -> Statistic:
    r"""Cohen's kappa of two judges' verdicts on the pairs in both orders, ``κ = (p_o − p_e) / (1 − p_e)``.

    Args:
        side_a_N: Verdicts 0, 1/2, 1 of the one.
        side_b_N: Of the other.
        linear: Whether a tie against a win counts as half an agreement (linear weights), not as none.

    Returns:
        The statistic; NaN where chance alone would agree always.
    """
    credit = 1.0 - np.abs(np.subtract.outer([0.0, 0.5, 1.0], [0.0, 0.5, 1.0]))
    credit = credit if linear else (credit == 1.0).astype(np.float64)
    a, b = np.rint(2 * side_a_N).astype(np.intp), np.rint(2 * side_b_N).astype(np.intp)
    cells = np.zeros((len(a), 9))
    cells[np.arange(len(a)), 3 * a + b] += 0.5
    cells[np.arange(len(a)), 3 * (2 - a) + (2 - b)] += 0.5

    def compute(weights_RN: FloatArray) -> FloatArray:
        table = (weights_RN @ cells).reshape(-1, 3, 3)
        table = table / table.sum(axis=(1, 2), keepdims=True)
        observed = (table * credit).sum(axis=(1, 2))
        chance = np.einsum("ra,rb,ab->r", table.sum(2), table.sum(1), credit)
        return _divide(observed - chance, 1.0 - chance)

    return Statistic(compute)


@dataclass(frozen=True)
class Bins:
    """A reliability curve: how often what was given probability P happened.

    Attributes:
        kind: "equal-width" or "equal-mass".
        edges: Ends of the bins, from 0 to 1, one more than bins; a bin contains its upper end.
        count: Answers in each bin; each pair is there in both orders, and counts one half in each.
        predicted: Mean win probability in each bin; None for an empty one.
        observed: Mean label in each bin; None for an empty one.
    """

    kind: str
    edges: list[float]
    count: list[float]
    predicted: list[float | None]
    observed: list[float | None]


def bin_edges(win_prob_N: FloatArray, bins: int, kind: str) -> FloatArray:
    """Edges of the bins: of equal width, or at the quantiles of the mirrored answers, equal ones merged.

    Args:
        win_prob_N: The answers, in [0, 1].
        bins: How many bins are wanted, at least 1.
        kind: "equal-width" or "equal-mass".

    Returns:
        Increasing, from 0 to 1.
    """
    if kind == "equal-width":
        return np.linspace(0.0, 1.0, bins + 1)
    mirrored = np.round(np.concatenate([win_prob_N, 1.0 - win_prob_N]), ROUND)
    inner = np.quantile(mirrored, np.linspace(0.0, 1.0, bins + 1)[1:-1], method="inverted_cdf")
    inner = inner[(inner > 0.0) & (inner < 1.0)]
    return np.concatenate([[0.0], np.unique(inner), [1.0]])


def calibration_error(win_prob_N: FloatArray, label_N: FloatArray, edges: FloatArray) -> Statistic:
    r"""Expected calibration error over the pairs in both orders, ``Σ_m (n_m / n) |mean P − mean label|``.

    Args:
        win_prob_N: The answers, in [0, 1].
        label_N: Labels, in [0, 1].
        edges: As `bin_edges` gives them; they stay where they are in resamples.

    Returns:
        The statistic.
    """
    gaps = _bin_sums(win_prob_N, label_N, edges, lambda p, y: p - y)

    def compute(weights_RN: FloatArray) -> FloatArray:
        return _divide(np.abs(weights_RN @ gaps).sum(1), weights_RN.sum(1))

    return Statistic(compute)


def reliability(win_prob_N: FloatArray, label_N: FloatArray, edges: FloatArray, kind: str) -> Bins:
    """The reliability curve of the pairs in both orders; arguments as for `calibration_error`."""
    count, predicted, observed = (
        _bin_sums(win_prob_N, label_N, edges, pick).sum(0)
        for pick in (lambda p, y: np.ones_like(p), lambda p, y: p, lambda p, y: y)
    )

    def means(total: NDArray[np.float64]) -> list[float | None]:
        return [float(t / n) if n else None for t, n in zip(total, count, strict=True)]

    return Bins(kind, edges.tolist(), count.tolist(), means(predicted), means(observed))


def _bin_sums(win_prob_N: FloatArray, label_N: FloatArray, edges: FloatArray, pick: _Pick) -> FloatArray:
    """For each pair what it adds to each bin, half of it in each order; shape (N, bins)."""
    sums = np.zeros((len(win_prob_N), len(edges) - 1))
    rows: IndexArray = np.arange(len(win_prob_N))
    for p, y in ((win_prob_N, label_N), (1.0 - win_prob_N, 1.0 - label_N)):
        inside = np.searchsorted(np.round(edges[1:-1], ROUND), np.round(p, ROUND), side="left")
        sums[rows, inside] += 0.5 * pick(p, y)
    return sums


def _divide(top: FloatArray, bottom: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0.0, top / bottom, np.nan)
