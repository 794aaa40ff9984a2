"""What may stand between a question and a judge: kept answers, a record, a limit, the cut into calls.

Each of these is a `Relay`, a few lines that pass questions on and answers back. `relayed` puts relays around a judge
and gives a judge back, a pointwise one for a pointwise one: questions are then single responses, otherwise ordered
pairs. The judge keeps its name and its identity, because a relay never changes an answer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge, mark_answered
from magnetar.judges.checks import FloatArray, IndexArray
from magnetar.judges.pointwise import PointwiseJudge
from magnetar.types import Prompt

__all__ = ["Answers", "Ask", "Count", "Questions", "Relay", "gather", "relayed"]


@dataclass(frozen=True)
class Questions:
    """N questions to a judge.

    Attributes:
        prompts: N prompts.
        texts: One column of N responses for a pointwise judge; two columns, first and second, for any other.
    """

    prompts: Sequence[Prompt]
    texts: tuple[Sequence[str], ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, index: Sequence[int] | IndexArray) -> "Questions":
        """The questions at some places, in that order."""
        at = [int(place) for place in index]
        return Questions([self.prompts[i] for i in at], tuple([column[i] for i in at] for column in self.texts))


Answers: TypeAlias = Iterator[tuple[IndexArray, FloatArray]]
"""Indices into the questions, and a row of numbers for each, shape (n, D); D = 1 for win probabilities."""
Ask: TypeAlias = Callable[[Questions], Answers]
Count: TypeAlias = Callable[[str, float], None]


class Relay(ABC):
    """One thing done to questions on their way to a judge, or to answers on their way back.

    Attributes:
        for_threads: Whether several threads may pass questions on at the same time.
    """

    for_threads: bool = False

    @abstractmethod
    def pass_on(self, questions: Questions, ask: Ask, count: Count) -> Answers:
        """Have N ≥ 1 questions answered.

        Args:
            questions: The questions.
            ask: Asks the next relay or the judge, some questions at a time.
            count: Adds to a counter that the judge's `stats` returns.

        Yields:
            Indices and rows, each question once, as soon as it is answered.
        """


class _Relayed(Judge):
    """What both judges with relays share: the judge inside, its name, identity and counters."""

    def __init__(self, judge: Judge, relays: Sequence[Relay]) -> None:
        self.judge = judge
        self.relays = tuple(relays)
        self.name = judge.name
        self.may_abstain = judge.may_abstain

    @property
    def calls_at_once(self) -> int:  # type: ignore[override]
        """As many as of the judge inside, where all relays are made for threads."""
        return self.judge.calls_at_once if all(relay.for_threads for relay in self.relays) else 1

    def leaves_free(self, device: str) -> bool:
        """Whether the judge inside does."""
        return self.judge.leaves_free(device)

    def identity(self) -> str:
        """Identity of the judge inside: relays change no answer."""
        return self.judge.identity()

    def _answers(self, questions: Questions, ask: Ask) -> Answers:
        for relay in reversed(self.relays):
            ask = partial(relay.pass_on, ask=ask, count=self._count)
        yield from ask(questions)

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        return counters | {f"inner_{name}": value for name, value in self.judge.stats().items()}


class RelayedJudge(_Relayed):
    """A judge with relays around it; questions are ordered pairs."""

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        return gather(self._iter_pair_win_prob(prompts, first, second), len(prompts), self.name)

    def _iter_pair_win_prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        for index, rows in self._answers(Questions(prompts, (first, second)), self._ask_judge):
            yield index, rows[:, 0]

    def _ask_judge(self, questions: Questions) -> Answers:
        first, second = questions.texts
        for index, answers in self.judge.iter_pair_win_prob(questions.prompts, first, second):
            yield index, answers[:, None]


class RelayedPointwiseJudge(_Relayed, PointwiseJudge):
    """A pointwise judge with relays around it; questions are single responses."""

    judge: PointwiseJudge
    calls_at_once: Any  # the property of `_Relayed`, which comes first

    def compare(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Compare as the judge inside does."""
        return self.judge.compare(first, second)

    def comparison(self) -> Mapping[str, Any] | None:
        """The comparison of the judge inside."""
        return self.judge.comparison()

    def _features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        return gather(self._iter_features(prompts, responses), len(prompts), self.name)

    def _iter_features(
        self, prompts: Sequence[Prompt], responses: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        yield from self._answers(Questions(prompts, (responses,)), self._ask_judge)

    def _ask_judge(self, questions: Questions) -> Answers:
        yield from self.judge.iter_features(questions.prompts, questions.texts[0])


def relayed(judge: Judge, *relays: Relay) -> Judge:
    """Put relays around a judge.

    Args:
        judge: Any judge; relays that it already has stay inside the new ones.
        *relays: The outermost first; none returns the judge as it is.

    Returns:
        A judge of equal answers, name and identity; pointwise if the judge is.
    """
    if not relays:
        return judge
    if isinstance(judge, RelayedJudge | RelayedPointwiseJudge):
        return type(judge)(judge.judge, (*relays, *judge.relays))
    if isinstance(judge, PointwiseJudge):
        return RelayedPointwiseJudge(judge, relays)
    return RelayedJudge(judge, relays)


def gather(batches: Answers | Iterator[tuple[IndexArray, Any]], count: int, judge: str) -> FloatArray:
    """Put answers that came batch by batch in order, and check that all came, once each.

    Args:
        batches: Indices, and an array whose first axis belongs to them.
        count: N.
        judge: Name of the judge, for the message.

    Returns:
        Shape (N, ...), with the other axes of the batches.

    Raises:
        JudgeError: If an answer is missing or was given twice.
    """
    answered = np.zeros(count, dtype=bool)
    answers: FloatArray | None = None
    for index, rows in batches:
        mark_answered(answered, index, judge)
        if answers is None:
            answers = np.full((count, *np.shape(rows)[1:]), np.nan)
        answers[index] = rows
    if answers is None or not answered.all():
        raise JudgeError(f"judge {judge!r} answered {int(answered.sum())} of {count} questions")
    return answers
