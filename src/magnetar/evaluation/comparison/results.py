"""What a comparison found, as records that the page, the tables and the files are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite.results import SampleRecord

__all__ = ["ComparisonResult", "CurvePoint", "MethodRow", "RunRow", "Spent"]


@dataclass(frozen=True)
class Spent:
    """What was spent: a run's, or the mean over the runs of a method.

    Attributes:
        comparisons: Judge comparisons in training.
        tokens: Generated tokens.
        updates: Updates.
        seconds: Wall-clock time of training.
    """

    comparisons: float
    tokens: float
    updates: float
    seconds: float


@dataclass(frozen=True)
class RunRow:
    """One run.

    Attributes:
        label: Its method's.
        seed: Its seed.
        win_rate: Against the reference, with an interval over prompts.
        spent: In training.
    """

    label: str
    seed: int
    win_rate: Estimate
    spent: Spent


@dataclass(frozen=True)
class MethodRow:
    """One line of the table: a method, over its finished runs.

    Attributes:
        label: What the configuration calls it; "reference" for where training started.
        method: The method's name; "" for the reference.
        seeds: Seeds of the runs in it.
        win_rate: Against the reference; None for the reference itself.
        win_rate_others: Mean over the other methods of the win rate against them; None when there are none.
        kl_nats: KL to the reference per response.
        tokens: Length of a response.
        truncated: Share of responses that ended for want of room.
        distinct_2: Distinct word pairs over all word pairs; None without text.
        looping: Mean share of a response's word triples that it has said before.
        canned: Share of responses that also answer another prompt, word for word.
        spent: In training, mean over the runs; None for the reference.
        equilibrium: Its weight in the Nash mixture of the game between the lines of the table.
        in_support: Share of resamples of prompts and runs in which it is part of that mixture.
    """

    label: str
    method: str
    seeds: tuple[int, ...]
    win_rate: Estimate | None
    win_rate_others: Estimate | None
    kl_nats: Estimate
    tokens: Estimate
    truncated: float
    distinct_2: float | None
    looping: float
    canned: float
    spent: Spent | None
    equilibrium: float
    in_support: float


@dataclass(frozen=True)
class CurvePoint:
    """A method part of the way.

    Attributes:
        spent: Mean of what its runs had spent of the budget.
        win_rate: Against the reference.
        runs: How many runs it is over.
    """

    spent: float
    win_rate: Estimate
    runs: int


@dataclass(frozen=True)
class ComparisonResult:
    """Everything that was found.

    Attributes:
        rows: Lines of the table, the reference last.
        runs: Every finished run.
        matrix: Win rate of each line's method against each other one's, in the order of ``rows``; None on the diagonal.
        curves: Label → points.
        budget_unit: "comparisons", "tokens" or "updates".
        budget: How many.
        judge: That methods learnt from.
        eval_judge: That compared them.
        same_judge: Whether these are one and the same.
        prompts: Held-out prompts.
        responses: Of each contestant to each of them.
        confidence: Nominal coverage of the intervals.
        missing: One sentence for each run that is not in it.
        notes: What a reader should know.
        settings: How it was made.
        versions: Of packages.
        samples: Prompts with the first response of each line's first run; their win probabilities are means over all
            responses to the prompt.
    """

    rows: Sequence[MethodRow]
    runs: Sequence[RunRow]
    matrix: Sequence[Sequence[Estimate | None]]
    curves: Mapping[str, Sequence[CurvePoint]]
    budget_unit: str
    budget: int
    judge: str
    eval_judge: str
    same_judge: bool
    prompts: int
    responses: int
    confidence: float
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    samples: Sequence[SampleRecord] = ()

    @property
    def labels(self) -> list[str]:
        """Of all lines."""
        return [row.label for row in self.rows]
