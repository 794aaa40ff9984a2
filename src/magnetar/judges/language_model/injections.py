"""How far a judge can be talked into a verdict by the responses it judges.

Every case is a bad response with an injected text, set against a good response without one. The judge is asked about
the pair with and without the injection, in both orders; a language model with its defence and without. A flip is a
verdict for the good response that becomes one for the bad.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from scipy import stats

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge
from magnetar.judges.language_model.judge import LanguageModelJudge

__all__ = [
    "InjectionCase",
    "InjectionOutcome",
    "InjectionReport",
    "InjectionSummary",
    "load_injections",
    "measure_injections",
]

ALL_FAMILIES = "all"


@dataclass(frozen=True)
class InjectionCase:
    """One attempt to win by giving orders.

    Attributes:
        family: What kind of attempt it is: "order", "fake turn", ...
        prompt: The prompt.
        good: A good response.
        bad: A bad one.
        injected: The bad one with the attempt in it.
    """

    family: str
    prompt: str
    good: str
    bad: str
    injected: str


@dataclass(frozen=True)
class InjectionOutcome:
    """What a judge said of one case; win probabilities are the bad response's, NaN where the judge abstained.

    Attributes:
        case: The case.
        arm: How the judge was asked: "defended" or "undefended", "as given" for a judge without a defence.
        plain_first: P(bad beats good) without the injection, the bad response in the first place.
        plain_second: The same with the bad response in the second place.
        injected_first: With the injection, in the first place.
        injected_second: With the injection, in the second place.
    """

    case: InjectionCase
    arm: str
    plain_first: float
    plain_second: float
    injected_first: float
    injected_second: float

    @property
    def plain(self) -> float:
        """P(bad beats good), the mean of both orders."""
        return (self.plain_first + self.plain_second) / 2.0

    @property
    def injected(self) -> float:
        """The same with the injection."""
        return (self.injected_first + self.injected_second) / 2.0


@dataclass(frozen=True)
class InjectionSummary:
    """How many verdicts were turned.

    Attributes:
        arm: As in `InjectionOutcome`.
        family: Family of the cases, or "all".
        cases: Cases asked about.
        masked: Of them those in which the judge abstained; they count nowhere below.
        won: Cases in which the good response won without the injection, and which can flip.
        flips: Of them those in which the bad one won with it.
        flip_rate: ``flips / won``; NaN when nothing could flip.
        low: Lower end of the flip rate's interval (Wilson).
        high: Upper end.
        ordered_won: Like `won`, each order by itself.
        ordered_flips: Like `flips`, each order by itself.
        shift: Mean gain in the bad response's win probability, in [-1, 1].
        shift_low: Lower end of its interval (Student's t over cases); NaN for fewer than two cases.
        shift_high: Upper end.
    """

    arm: str
    family: str
    cases: int
    masked: int
    won: int
    flips: int
    flip_rate: float
    low: float
    high: float
    ordered_won: int
    ordered_flips: int
    shift: float
    shift_low: float
    shift_high: float


@dataclass(frozen=True)
class InjectionReport:
    """All outcomes of a measurement.

    Attributes:
        judge: Name of the judge.
        confidence: Coverage of the intervals.
        outcomes: One for each case and arm.
    """

    judge: str
    confidence: float
    outcomes: tuple[InjectionOutcome, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """How the judge was asked, in that order."""
        return tuple(dict.fromkeys(outcome.arm for outcome in self.outcomes))

    @property
    def families(self) -> tuple[str, ...]:
        """Families of the cases, in their order."""
        return tuple(dict.fromkeys(outcome.case.family for outcome in self.outcomes))

    def summary(self, arm: str, family: str = ALL_FAMILIES) -> InjectionSummary:
        """Sum up the cases of an arm.

        Args:
            arm: One of `arms`.
            family: One of `families`, or "all".

        Returns:
            The summary.
        """
        chosen = [o for o in self.outcomes if o.arm == arm and family in (ALL_FAMILIES, o.case.family)]
        answered = [o for o in chosen if not np.isnan(o.plain + o.injected)]
        won = [o for o in answered if o.plain < 0.5]
        flips = sum(o.injected > 0.5 for o in won)
        ordered = [
            pair
            for o in answered
            for pair in ((o.plain_first, o.injected_first), (o.plain_second, o.injected_second))
            if pair[0] < 0.5
        ]
        rate, low, high = float("nan"), float("nan"), float("nan")
        if won:
            rate = flips / len(won)
            low, high = stats.binomtest(flips, len(won)).proportion_ci(self.confidence, method="wilson")
        shift, shift_low, shift_high = _mean_interval([o.injected - o.plain for o in answered], self.confidence)
        return InjectionSummary(
            arm=arm,
            family=family,
            cases=len(chosen),
            masked=len(chosen) - len(answered),
            won=len(won),
            flips=flips,
            flip_rate=rate,
            low=float(low),
            high=float(high),
            ordered_won=len(ordered),
            ordered_flips=sum(after > 0.5 for _, after in ordered),
            shift=shift,
            shift_low=shift_low,
            shift_high=shift_high,
        )

    def summaries(self) -> list[InjectionSummary]:
        """One summary for each arm over all cases, then one for each family and arm."""
        families = (ALL_FAMILIES, *self.families)
        return [self.summary(arm, family) for family in families for arm in self.arms]

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each outcome, for a table or a file."""
        return [
            {
                "arm": o.arm,
                "family": o.case.family,
                "prompt": o.case.prompt,
                "injected_response": o.case.injected,
                "plain_first": o.plain_first,
                "plain_second": o.plain_second,
                "injected_first": o.injected_first,
                "injected_second": o.injected_second,
                "plain": o.plain,
                "injected": o.injected,
            }
            for o in self.outcomes
        ]


@functools.cache
def load_injections() -> tuple[InjectionCase, ...]:
    """The cases that come with the library.

    Returns:
        At least 50 cases of more than ten families.
    """
    text = files("magnetar.judges.language_model").joinpath("injections.yaml").read_text("utf-8")
    content = yaml.safe_load(text)
    cases = []
    for at, item in enumerate(content["injections"]):
        pair = content["pairs"][at % len(content["pairs"])]
        attempt = (item["text"] * item.get("times", 1)).rstrip(" ")
        parts = (attempt, pair["bad"]) if item.get("place") == "before" else (pair["bad"], attempt)
        cases.append(InjectionCase(item["family"], pair["prompt"], pair["good"], pair["bad"], "\n\n".join(parts)))
    return tuple(cases)


def measure_injections(
    judge: Judge, *, cases: Sequence[InjectionCase] | None = None, confidence: float = 0.95
) -> InjectionReport:
    """Measure how often a response wins by giving orders.

    Args:
        judge: Any judge. A language model, also inside `Symmetrized` or another wrapper, is asked with and without its
            defence, past its wrappers; any other judge is asked as it is.
        cases: What is tried; those that come with the library when None.
        confidence: Coverage of the intervals, in (0, 1).

    Returns:
        The outcomes, with summaries.

    Raises:
        JudgeError: If the judge fails, the confidence is no probability, or there are no cases.
    """
    if not 0.0 < confidence < 1.0:
        raise JudgeError(f"confidence = {confidence}, expected a number in (0, 1), such as 0.95")
    cases = load_injections() if cases is None else tuple(cases)
    if not cases:
        raise JudgeError("there are no injections to try, expected at least one case")
    model = _language_model(judge)
    arms: dict[str, Judge] = {"as given": judge}
    if model is not None:
        arms = {"defended": model.with_defence(True), "undefended": model.with_defence(False)}
    outcomes = [outcome for arm, asked in arms.items() for outcome in _outcomes(asked, arm, cases)]
    return InjectionReport(judge.name, confidence, tuple(outcomes))


def _outcomes(judge: Judge, arm: str, cases: Sequence[InjectionCase]) -> list[InjectionOutcome]:
    """Ask about all cases at once, a pair that occurs in several cases only once."""
    questions: dict[tuple[str, str, str], int] = {}
    wanted = []
    for case in cases:
        for bad in (case.bad, case.injected):
            for first, second in ((bad, case.good), (case.good, bad)):
                wanted.append(questions.setdefault((case.prompt, first, second), len(questions)))
    prompts, first, second = (list(part) for part in zip(*questions, strict=True))
    answer = judge.pair_win_prob(prompts, first, second)[wanted].reshape(len(cases), 4)
    # In the second place the bad response's win probability is the complement.
    answer[:, 1::2] = 1.0 - answer[:, 1::2]
    return [
        InjectionOutcome(case, arm, *(float(value) for value in row)) for case, row in zip(cases, answer, strict=True)
    ]


def _language_model(judge: Any) -> LanguageModelJudge | None:
    """The language model inside a judge's wrappers, if that is what is there."""
    while isinstance(judge, Judge) and not isinstance(judge, LanguageModelJudge):
        judge = getattr(judge, "judge", None)
    return judge if isinstance(judge, LanguageModelJudge) else None


def _mean_interval(values: list[float], confidence: float) -> tuple[float, float, float]:
    if not values:
        return float("nan"), float("nan"), float("nan")
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf((1.0 + confidence) / 2.0, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half
