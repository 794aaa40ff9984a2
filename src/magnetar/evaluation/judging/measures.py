"""What is known of a judge after it was asked: records, with plain values for JSON."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.cycles import CycleShare
from magnetar.evaluation.judging.statistics import Bins
from magnetar.types import Prompt

__all__ = [
    "LONGER_WINS",
    "SHORTER_WINS",
    "Baseline",
    "Calibration",
    "CategoryMeasures",
    "Disagreement",
    "JudgeEvaluation",
    "LabelMeasures",
    "LengthCurve",
    "LengthMeasures",
    "plain",
]

LONGER_WINS = "longer wins"
SHORTER_WINS = "shorter wins"


@dataclass(frozen=True)
class Calibration:
    """Whether what is given probability P happens with frequency P; each pair counts in both orders.

    Attributes:
        error: Expected calibration error over bins of equal width.
        error_equal_mass: The same over bins that hold equally many answers.
        error_if_calibrated: Mean error of labels drawn from the judge's own probabilities, over the same bins of equal
            width: what chance alone gives a perfectly calibrated judge. None for soft labels, which are not drawn.
        equal_width: The reliability curve.
        equal_mass: The same in bins of equal mass.
    """

    error: Estimate
    error_equal_mass: Estimate
    error_if_calibrated: float | None
    equal_width: Bins
    equal_mass: Bins


@dataclass(frozen=True)
class LengthCurve:
    """How the preference for the longer response grows with how much longer it is.

    Pairs of different length in up to five bins of equal mass, by the absolute difference in characters.

    Attributes:
        difference: Mean difference in each bin, characters.
        pairs: Number of pairs in each bin.
        judge: Mean P(the longer one wins) by the judge.
        labels: The same by the labels; None without labels.
    """

    difference: list[float]
    pairs: list[int]
    judge: list[float]
    labels: list[float] | None


@dataclass(frozen=True)
class LengthMeasures:
    """What length has to do with labels, and with the judge's mistakes; lengths in characters.

    Attributes:
        label_correlation: Spearman correlation of the difference in length with the label.
        accuracy_longer: Accuracy where the labels prefer the longer response; NaN where there is no such pair.
        accuracy_shorter: Accuracy where they prefer the shorter one.
        pairs_longer: Number of the former.
        pairs_shorter: Number of the latter.
    """

    label_correlation: Estimate
    accuracy_longer: Estimate
    accuracy_shorter: Estimate
    pairs_longer: int
    pairs_shorter: int


@dataclass(frozen=True)
class Baseline:
    """Another way to judge the same pairs.

    Attributes:
        accuracy: Its accuracy.
        difference: The judge's accuracy minus the baseline's, on the pairs that both answered; the interval is that of
            the difference, which is narrower than two intervals side by side suggest.
    """

    accuracy: Estimate
    difference: Estimate


@dataclass(frozen=True)
class CategoryMeasures:
    """The judge on the pairs of one category.

    Attributes:
        pairs: Pairs with an answer and a label that is no tie.
        accuracy: As overall.
        longer_wins: Accuracy of "the longer one wins" on the same pairs.
        masked: Pairs that the judge left unanswered.
    """

    pairs: int
    accuracy: Estimate
    longer_wins: Estimate
    masked: int


@dataclass(frozen=True)
class Disagreement:
    """A pair on which judge and label are far apart.

    Attributes:
        prompt: The prompt.
        first: The first response.
        second: The second response.
        label: P(first beats second) by the label.
        win_prob: P(first beats second) by the judge.
        category: Of the pair; None without categories.
    """

    prompt: Prompt
    first: str
    second: str
    label: float
    win_prob: float
    category: str | None


@dataclass(frozen=True)
class LabelMeasures:
    """The judge against labels.

    Attributes:
        pairs: Pairs that were answered and whose label is no tie: those of the accuracy.
        soft: Whether a label lies strictly between 0 and 1.
        label_ties: Answered pairs whose label is one half; they have no right side, and count elsewhere only.
        accuracy: Share of pairs on whose side (P above or below one half) judge and label agree; a tie of the judge
            counts one half.
        cross_entropy_nats: Mean of ``−l ln P − (1 − l) ln(1 − P)``, P clipped to [1e-6, 1 − 1e-6].
        label_entropy_nats: The same with the labels in place of P: the least that is possible; 0 for hard labels.
        certain_errors: Share of pairs to whose outcome the judge gave a probability below 1e-6; each weighs 13.8 nats.
        brier: Mean of ``(P − l)²``.
        calibration: Reliability.
        length: Mistakes by length.
        baselines: Other ways to judge the same pairs, by name; "longer wins" and "shorter wins" among them.
        categories: By category, in alphabetical order; empty without.
        disagreements: Where judge and labels are farthest apart, the worst first.
    """

    pairs: int
    soft: bool
    label_ties: int
    accuracy: Estimate
    cross_entropy_nats: Estimate
    label_entropy_nats: float
    certain_errors: Estimate
    brier: Estimate
    calibration: Calibration
    length: LengthMeasures
    baselines: dict[str, Baseline]
    categories: dict[str, CategoryMeasures]
    disagreements: tuple[Disagreement, ...] = ()

    @property
    def shown_baselines(self) -> dict[str, Baseline]:
        """The baselines without the worse of "longer wins" and "shorter wins", which would flatter the judge."""
        rules = [name for name in (LONGER_WINS, SHORTER_WINS) if name in self.baselines]
        best = max(rules, key=lambda name: self.baselines[name].accuracy.value, default=None)
        return {name: one for name, one in self.baselines.items() if name not in rules or name == best}


@dataclass(frozen=True)
class JudgeEvaluation:
    """All measures of a judge on a set of pairs.

    Attributes:
        judge: Its name.
        pairs: Pairs that were asked about.
        prompts: Distinct prompts among them.
        masked: Pairs that the judge left unanswered; they are in no other figure.
        asked: In words, in which order the responses were shown.
        ties: Share of answers within 1e-9 of one half.
        flips: Share of pairs whose winner changes with the order (a tie in either order is no flip); None for a judge
            that reads each response by itself.
        first_place: Mean probability given to the response in the first place, over both orders; 1/2 when the place
            does not matter; None as for ``flips``.
        flips_note: Why there is no flip rate; None when there is one.
        cycles: Cyclic triples; None when they could not be measured.
        cycles_note: Why not; None when they were.
        length_correlation: Spearman correlation of the difference in length, in characters, with P.
        prefers_longer: Share of pairs of different length in which the judge prefers the longer; ties one half.
        length_curve: How the preference for the longer grows with the difference.
        labels: The judge against labels; None without labels.
        confidence: Nominal coverage of the intervals.
        bootstrap: Resamples behind them; prompts are the unit.
        seed: Seed of resampling and drawing.
        counters: The judge's own counters.
    """

    judge: str
    pairs: int
    prompts: int
    masked: int
    asked: str
    ties: Estimate
    flips: Estimate | None
    first_place: Estimate | None
    flips_note: str | None
    cycles: CycleShare | None
    cycles_note: str | None
    length_correlation: Estimate
    prefers_longer: Estimate
    length_curve: LengthCurve
    labels: LabelMeasures | None
    confidence: float
    bootstrap: int
    seed: int
    counters: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return plain(asdict(self))


def plain(value: Any) -> Any:
    """The same with NaN and infinities as None and tuples as lists, which JSON can say."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value
