"""Measure a judge on preference rows: accuracy, calibration, flips, cycles, length, baselines, categories."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from magnetar.errors import DataError, JudgeError
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.cycles import CycleShare, measure_cycles, response_groups
from magnetar.evaluation.judging.measures import (
    LONGER_WINS,
    SHORTER_WINS,
    Baseline,
    Calibration,
    CategoryMeasures,
    Disagreement,
    JudgeEvaluation,
    LabelMeasures,
    LengthCurve,
    LengthMeasures,
)
from magnetar.evaluation.judging.pairs import FloatArray, JudgedPairs, Pairs, ask_pairs, prompt_numbers
from magnetar.evaluation.judging.resampling import Resampling, Statistic, estimate_all
from magnetar.evaluation.judging.statistics import (
    bin_edges,
    calibration_error,
    mean,
    mirrored_spearman,
    ratio,
    reliability,
    sides,
)
from magnetar.judges import Judge

__all__ = ["NO_GROUPS", "evaluate_judge", "length_differences", "measure_judge"]

NO_GROUPS = "no prompt has three different responses"
CLIP = 1e-6
CALIBRATION_BINS = 10
CALIBRATED_DRAWS = 200
LENGTH_BINS = 5


def evaluate_judge(
    judge: Judge,
    pairs: Any,
    *,
    baselines: "Mapping[str, Judge | ArrayLike] | None" = None,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    max_group: int = 6,
    disagreements: int = 12,
    progress: bool = False,
) -> JudgeEvaluation:
    """Ask a judge about preference rows and measure its answers.

    No figure depends on which response stands first in the rows: a judge of pairs is asked in both orders.

    Args:
        judge: The judge.
        pairs: Columns ``prompt``, ``first``, ``second`` and, for the measures against labels, ``win_prob``; perhaps
            ``category``. A `datasets.Dataset` as `magnetar.data.load_preferences` returns it, or a mapping of columns.
        baselines: Other ways to judge the same pairs, by name: judges, or arrays of P(first beats second). "longer
            wins" and "shorter wins" are always there.
        bootstrap: Resamples of the intervals, at least 100; prompts are the unit.
        confidence: Nominal coverage, in (0, 1).
        seed: Seed of resampling and drawing.
        max_group: Most responses to one prompt that are compared with each other for the cycles, at least 3; 0 leaves
            the cycles out, and their questions.
        disagreements: How many of the worst disagreements to keep.
        progress: Whether to show a bar.

    Returns:
        The measures.

    Raises:
        DataError: The rows are not of this form.
        JudgeError: The judge fails, or left every pair unanswered.
        ConfigError: A setting is out of range.
    """
    resampling = Resampling(bootstrap, confidence, seed)
    judged = ask_pairs(judge, pairs, progress=progress)
    cycles: CycleShare | str = "not asked for"
    if max_group:
        if max_group < 3:
            raise DataError(f"max_group={max_group}, expected at least 3 for a triple, or 0 to leave cycles out")
        groups = response_groups(judged.pairs, max_responses=max_group, seed=seed)
        cycles = NO_GROUPS
        if groups:
            cycles = measure_cycles(judge, groups, resampling, progress=progress)
    given = {
        name: ask_pairs(one, judged.pairs, progress=progress) if isinstance(one, Judge) else one
        for name, one in (baselines or {}).items()
    }
    return measure_judge(judged, cycles=cycles, baselines=given, resampling=resampling, disagreements=disagreements)


def measure_judge(
    judged: JudgedPairs,
    *,
    cycles: CycleShare | str = "not asked for",
    baselines: "Mapping[str, JudgedPairs | ArrayLike] | None" = None,
    resampling: Resampling | None = None,
    disagreements: int = 12,
) -> JudgeEvaluation:
    """Measure answers that are there already.

    Args:
        judged: The answers, from `ask_pairs`.
        cycles: Cyclic triples, from `measure_cycles`, or why there are none.
        baselines: Answers of others to the same pairs, by name: `JudgedPairs`, or arrays of P(first beats second).
        resampling: How intervals are made.
        disagreements: How many of the worst disagreements to keep.

    Returns:
        The measures.

    Raises:
        JudgeError: Every pair was left unanswered.
        DataError: A baseline has another number of answers.
    """
    resampling = resampling or Resampling()
    answered = judged.answered_N
    if not answered.any():
        raise JudgeError(
            f"judge {judged.judge!r} left all {len(answered)} pairs unanswered; there is nothing to measure"
        )
    part = _Answered(judged, np.flatnonzero(answered), resampling)
    labels = None
    if judged.pairs.label_N is not None:
        labels = _label_measures(part, _baseline_answers(judged, baselines or {}), disagreements)
    flips, first_place = _order_measures(part)
    length = _shared_length_measures(part)
    return JudgeEvaluation(
        judge=judged.judge,
        pairs=len(judged.pairs),
        prompts=int(prompt_numbers(judged.pairs.prompts).max()) + 1,
        masked=int((~answered).sum()),
        asked=_asked(judged),
        ties=part.estimate(mean((sides(part.answers_NK) == 0.5).mean(1), share=True)),
        flips=flips,
        first_place=first_place,
        flips_note=None if flips else "each response is read by itself, so the order cannot matter",
        cycles=cycles if isinstance(cycles, CycleShare) else None,
        cycles_note=cycles if isinstance(cycles, str) else None,
        length_correlation=length["correlation"],
        prefers_longer=length["prefers_longer"],
        length_curve=_length_curve(part),
        labels=labels,
        confidence=resampling.confidence,
        bootstrap=resampling.bootstrap,
        seed=resampling.seed,
        counters=judged.counters,
    )


def length_differences(pairs: Pairs) -> FloatArray:
    """Length of the first response minus that of the second, in characters.

    Args:
        pairs: N pairs.

    Returns:
        Shape (N,).
    """
    return np.array([len(a) - len(b) for a, b in zip(pairs.first, pairs.second, strict=True)], dtype=np.float64)


class _Answered:
    """The pairs of some rows, with what all measures of them need."""

    def __init__(self, judged: JudgedPairs, rows: np.ndarray, resampling: Resampling) -> None:
        self.judged, self.rows, self.resampling = judged, rows, resampling
        self.pairs = judged.pairs.select(rows.tolist())
        self.answers_NK = judged.answers_NK[rows]
        self.cluster_N = prompt_numbers(self.pairs.prompts)
        self.length_N = length_differences(self.pairs)

    @property
    def label_N(self) -> FloatArray:
        assert self.pairs.label_N is not None  # asked for with labels only
        return self.pairs.label_N

    def estimates(self, statistics: Mapping[str, Statistic]) -> dict[str, Estimate]:
        return estimate_all(statistics, self.cluster_N, self.resampling)

    def estimate(self, statistic: Statistic) -> Estimate:
        return self.estimates({"only": statistic})["only"]

    def over_orders(self, make: Any, *values_N: FloatArray) -> Statistic:
        """A statistic of answers and other values, in which each order of a pair is an item of its own."""
        orders = self.answers_NK.shape[1]
        inner = make(self.answers_NK.ravel(), *(np.repeat(value, orders) for value in values_N))
        return Statistic(lambda weights_RN: inner.compute(np.repeat(weights_RN, orders, axis=1)), inner.share)


def _asked(judged: JudgedPairs) -> str:
    if judged.backward_N is None:
        return "each response by itself"
    return "both orders, averaged" if judged.averaged else "both orders, each counted one half"


def _order_measures(part: _Answered) -> tuple[Estimate | None, Estimate | None]:
    """Flip rate, and the mean probability of the response in the first place."""
    if part.judged.backward_N is None:
        return None, None
    forward, backward = part.judged.forward_N[part.rows], part.judged.backward_N[part.rows]
    flipped = np.abs(sides(forward) - sides(backward)) == 1.0
    found = part.estimates(
        {
            "flips": mean(flipped.astype(np.float64), share=True),
            "first_place": mean((forward + 1.0 - backward) / 2.0, share=True),
        }
    )
    return found["flips"], found["first_place"]


def _shared_length_measures(part: _Answered) -> dict[str, Estimate]:
    longer = np.sign(part.length_N)
    towards = (0.5 + (sides(part.answers_NK).mean(1) - 0.5) * longer) * np.abs(longer)
    return part.estimates(
        {
            "correlation": part.over_orders(lambda p, d: mirrored_spearman(p - 0.5, d), part.length_N),
            "prefers_longer": ratio(towards, np.abs(longer), share=True),
        }
    )


def _length_curve(part: _Answered) -> LengthCurve:
    apart = np.abs(part.length_N)
    rows = np.flatnonzero(apart)
    rows = rows[np.argsort(apart[rows], kind="stable")]
    bins = [rows[part_rows] for part_rows in np.array_split(np.arange(len(rows)), LENGTH_BINS) if len(part_rows)]
    first_longer = part.length_N > 0

    def mean_for_longer(value_N: FloatArray) -> list[float]:
        towards = np.where(first_longer, value_N, 1.0 - value_N)
        return [float(towards[inside].mean()) for inside in bins]

    labels = part.pairs.label_N
    return LengthCurve(
        [float(apart[inside].mean()) for inside in bins],
        [len(inside) for inside in bins],
        mean_for_longer(part.answers_NK.mean(1)),
        None if labels is None else mean_for_longer(labels),
    )


def _label_measures(part: _Answered, baselines: Mapping[str, FloatArray], disagreements: int) -> LabelMeasures:
    label = part.label_N
    decided = (sides(label) != 0.5).astype(np.float64)
    hits = (1.0 - np.abs(sides(part.answers_NK) - sides(label)[:, None])).mean(1)
    clipped = np.clip(part.answers_NK, CLIP, 1.0 - CLIP)
    soft = label[:, None]
    entropy = -(soft * np.log(clipped) + (1.0 - soft) * np.log1p(-clipped)).mean(1)
    certain = ((soft > 0.0) & (part.answers_NK < CLIP)) | ((soft < 1.0) & (part.answers_NK > 1.0 - CLIP))
    found = part.estimates(
        {
            "accuracy": ratio(hits * decided, decided, share=True),
            "cross_entropy": mean(entropy),
            "certain": mean(certain.mean(1), share=True),
            "brier": mean(((part.answers_NK - soft) ** 2).mean(1), share=True),
        }
    )
    is_soft = bool(((label > 0.0) & (label < 1.0)).any())
    return LabelMeasures(
        pairs=int(decided.sum()),
        soft=is_soft,
        label_ties=int(len(label) - decided.sum()),
        accuracy=found["accuracy"],
        cross_entropy_nats=found["cross_entropy"],
        label_entropy_nats=float((entr(label) + entr(1.0 - label)).mean()),
        certain_errors=found["certain"],
        brier=found["brier"],
        calibration=_calibration(part, is_soft),
        length=_label_length(part, hits, decided),
        baselines={name: _baseline(part, hits, decided, answers) for name, answers in baselines.items()},
        categories=_categories(part, hits, decided),
        disagreements=_worst(part, disagreements),
    )


def _calibration(part: _Answered, soft: bool) -> Calibration:
    answers, orders = part.answers_NK.ravel(), part.answers_NK.shape[1]
    label = np.repeat(part.label_N, orders)
    wide, massive = (bin_edges(answers, CALIBRATION_BINS, kind) for kind in ("equal-width", "equal-mass"))
    found = part.estimates(
        {
            "wide": part.over_orders(lambda p, y: calibration_error(p, y, wide), part.label_N),
            "massive": part.over_orders(lambda p, y: calibration_error(p, y, massive), part.label_N),
        }
    )
    return Calibration(
        found["wide"],
        found["massive"],
        None if soft else _error_if_calibrated(part, wide),
        reliability(answers, label, wide, "equal-width"),
        reliability(answers, label, massive, "equal-mass"),
    )


def _error_if_calibrated(part: _Answered, edges: FloatArray) -> float:
    """Mean calibration error when the labels are drawn from the answers themselves."""
    rng = np.random.default_rng(part.resampling.seed)
    orders = part.answers_NK.shape[1]
    ones = np.ones((1, part.answers_NK.size))
    errors = []
    for _ in range(CALIBRATED_DRAWS):
        drawn = (rng.random(len(part.rows)) < part.answers_NK.mean(1)).astype(np.float64)
        statistic = calibration_error(part.answers_NK.ravel(), np.repeat(drawn, orders), edges)
        errors.append(float(statistic.compute(ones)[0]))
    return float(np.mean(errors))


def _label_length(part: _Answered, hits: FloatArray, decided: FloatArray) -> LengthMeasures:
    towards = np.sign(part.length_N) * (2.0 * sides(part.label_N) - 1.0) * decided
    longer, shorter = (towards > 0).astype(np.float64), (towards < 0).astype(np.float64)
    found = part.estimates(
        {
            "label": mirrored_spearman(part.length_N, part.label_N - 0.5),
            "longer": ratio(hits * longer, longer, share=True),
            "shorter": ratio(hits * shorter, shorter, share=True),
        }
    )
    return LengthMeasures(found["label"], found["longer"], found["shorter"], int(longer.sum()), int(shorter.sum()))


def _baseline_answers(judged: JudgedPairs, baselines: "Mapping[str, JudgedPairs | ArrayLike]") -> dict[str, FloatArray]:
    """Answers of the baselines to all pairs, shape (N, K) each."""
    longer = (0.5 + 0.5 * np.sign(length_differences(judged.pairs)))[:, None]
    found = {LONGER_WINS: longer, SHORTER_WINS: 1.0 - longer}
    for name, given in baselines.items():
        answers = given.answers_NK if isinstance(given, JudgedPairs) else np.asarray(given, dtype=np.float64)
        if answers.shape[:1] != (len(judged.pairs),):
            raise DataError(
                f"baseline {name!r} has answers of shape {answers.shape} for {len(judged.pairs)} pairs, expected one "
                "P(first beats second) for each"
            )
        found[name] = answers.reshape(len(judged.pairs), -1)
    return found


def _baseline(part: _Answered, hits: FloatArray, decided: FloatArray, answers_NK: FloatArray) -> Baseline:
    answers_NK = answers_NK[part.rows]
    both = decided * ~np.isnan(answers_NK).any(1)
    theirs = np.nan_to_num((1.0 - np.abs(sides(answers_NK) - sides(part.label_N)[:, None])).mean(1))
    found = part.estimates(
        {"accuracy": ratio(theirs * both, both, share=True), "difference": ratio((hits - theirs) * both, both)}
    )
    return Baseline(found["accuracy"], found["difference"])


def _categories(part: _Answered, hits: FloatArray, decided: FloatArray) -> dict[str, CategoryMeasures]:
    every = part.judged.pairs.categories
    if every is None or part.pairs.categories is None:
        return {}
    here, everywhere = np.array(part.pairs.categories), np.array(every)
    rule = 0.5 + 0.5 * np.sign(part.length_N)
    rule_hits = 1.0 - np.abs(rule - sides(part.label_N))
    found = {}
    for name in sorted(set(every)):
        inside = (here == name) & (decided > 0)
        masked = int((everywhere == name).sum() - (here == name).sum())
        if not inside.any():
            nothing = Estimate(np.nan, None, None, part.resampling.confidence, "undefined", "no answered pair")
            found[name] = CategoryMeasures(0, nothing, nothing, masked)
            continue
        cluster = np.unique(part.cluster_N[inside], return_inverse=True)[1]
        statistics = {"judge": mean(hits[inside], share=True), "rule": mean(rule_hits[inside], share=True)}
        estimates = estimate_all(statistics, cluster, part.resampling)
        found[name] = CategoryMeasures(int(inside.sum()), estimates["judge"], estimates["rule"], masked)
    return found


def _worst(part: _Answered, count: int) -> tuple[Disagreement, ...]:
    answer, label = part.answers_NK.mean(1), part.label_N
    # Where many are equally far apart, the order of the file would show its beginning only.
    shuffled = np.random.default_rng(part.resampling.seed).permutation(len(label))
    order = shuffled[np.argsort(-np.abs(answer - label)[shuffled], kind="stable")]
    wrong: list[int] = [int(row) for row in order if abs(answer[row] - label[row]) > 0.5][:count]
    pairs = part.pairs
    return tuple(
        Disagreement(
            pairs.prompts[row],
            pairs.first[row],
            pairs.second[row],
            float(label[row]),
            float(answer[row]),
            None if pairs.categories is None else pairs.categories[row],
        )
        for row in wrong
    )
