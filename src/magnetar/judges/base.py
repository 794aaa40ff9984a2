"""The judge protocol: who beats whom, for pairs, for whole groups and against opponents.

Public methods check the question, ask the subclass through a hook whose name starts with an underscore, and check the
answer with `validate_win_prob`. A subclass implements hooks only, so that no judge can skip the checks.
"""

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from magnetar.errors import JudgeError
from magnetar.judges.checks import (
    FloatArray,
    Groups,
    IndexArray,
    check_groups,
    check_pairs,
    describe_pair,
    validate_win_prob,
)
from magnetar.types import Prompt

# One for all judges: an addition is short, and a judge can be copied and pickled.
_COUNTING = threading.Lock()

__all__ = ["Judge", "collect", "fill_group", "mark_answered"]


class Judge(ABC):
    """Something that says with what probability one response beats another.

    Subclasses implement `_pair_win_prob`; override `_group_win_prob` and `_cross_win_prob` where they can answer a
    whole group more cheaply than pair by pair, and `_iter_pair_win_prob` where answers are finished one after another;
    and say in `_identity` what decides their answers, so that these can be kept.

    Attributes:
        name: What reports call the judge, for instance "panel" or "reward:MODEL".
        may_abstain: Whether a pair may be left unanswered: its win probability is then NaN, counted here as `masked`,
            and whoever uses the answers leaves the pair out. A judge never guesses.
        calls_at_once: How many calls of the judge, from different threads, gain by being open at the same time; at
            least 1, which is for a judge that works by itself, or is not made for threads.
    """

    name: str = "judge"
    may_abstain: bool = False
    calls_at_once: int = 1

    def leaves_free(self, device: str) -> bool:
        """Whether the judge answers without using a device, so that training goes on there while it is asked.

        Args:
            device: As torch names it: "cpu", "cuda:0".

        Returns:
            False for a judge that does not say so: the trainer then waits for it unless told otherwise.
        """
        return False

    def pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        """Ask for each pair with what probability the first response beats the second.

        Args:
            prompts: N prompts, text or chat turns.
            first: N responses, one for each prompt.
            second: N responses to the same prompts.

        Returns:
            Shape (N,), in [0, 1]: P(first beats second); NaN where a judge that may abstain did.

        Raises:
            JudgeError: If the three lengths differ, or an answer is NaN, outside [0, 1] or of the wrong shape.
        """
        check_pairs(self.name, prompts, first, second)
        if not len(prompts):
            return np.zeros(0)
        self._count("comparisons", len(prompts))
        answer = self._validated(self._pair_win_prob(prompts, first, second), prompts, first, second)
        self._count_masked(answer)
        return answer

    def iter_pair_win_prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        """Ask as in `pair_win_prob`, and get answers as they are finished.

        What has been yielded is final, also when a later pair fails: a cache or a file keeps it.

        Args:
            prompts: N prompts.
            first: N responses.
            second: N responses to the same prompts.

        Yields:
            Indices into the N pairs, and P(first beats second) of these pairs; together each index exactly once, in
            any order.

        Raises:
            JudgeError: As `pair_win_prob`; an answer that is missing or given twice is an error too.
        """
        check_pairs(self.name, prompts, first, second)
        if not len(prompts):
            return
        self._count("comparisons", len(prompts))
        answered = np.zeros(len(prompts), dtype=bool)
        for index, answer in self._iter_pair_win_prob(prompts, first, second):
            places = [int(at) for at in index]
            asked = [prompts[at] for at in places]
            checked = self._validated(answer, asked, [first[at] for at in places], [second[at] for at in places])
            mark_answered(answered, index, self.name)
            self._count_masked(checked)
            yield np.asarray(index, dtype=np.intp), checked
        if not answered.all():
            raise JudgeError(f"judge {self.name!r} answered {int(answered.sum())} of {len(answered)} pairs")

    def group_win_prob(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        """Compare all responses to the same prompt with each other.

        Args:
            prompts: B prompts.
            responses: B groups of G responses.

        Returns:
            Shape (B, G, G), in [0, 1]: entry (b, i, j) is P(response i beats response j); P + Pᵀ = 1, diagonal 1/2;
            NaN, for both orders, where a judge that may abstain did.

        Raises:
            JudgeError: If the groups differ in size, or an answer is NaN, outside [0, 1] or not antisymmetric.
        """
        size = check_groups(self.name, "responses", prompts, responses)
        if size == 0:
            return np.zeros((len(prompts), 0, 0))
        self._count("comparisons", len(prompts) * size * (size - 1) // 2)
        answer = self._group_win_prob(prompts, responses)
        checked = validate_win_prob(
            answer,
            (len(prompts), size, size),
            self.name,
            lambda at: describe_pair(prompts[at[0]], responses[at[0]][at[1]], responses[at[0]][at[2]]),
            antisymmetric=True,
            masked=self.may_abstain,
        )
        self._count_masked(checked[:, *np.triu_indices(size, k=1)])
        return checked

    def cross_win_prob(self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups) -> FloatArray:
        """Compare each response with each opponent's response to the same prompt.

        Args:
            prompts: B prompts.
            responses: B groups of G responses.
            opponents: B groups of H opponents' responses.

        Returns:
            Shape (B, G, H), in [0, 1]: entry (b, g, h) is P(response g beats opponent h); NaN where a judge that may
            abstain did.

        Raises:
            JudgeError: If the groups differ in size, or an answer is NaN or outside [0, 1].
        """
        size = check_groups(self.name, "responses", prompts, responses)
        against = check_groups(self.name, "opponents", prompts, opponents)
        shape = (len(prompts), size, against)
        if 0 in shape:
            return np.zeros(shape)
        self._count("comparisons", len(prompts) * size * against)
        answer = self._cross_win_prob(prompts, responses, opponents)
        checked = validate_win_prob(
            answer,
            shape,
            self.name,
            lambda at: describe_pair(prompts[at[0]], responses[at[0]][at[1]], opponents[at[0]][at[2]]),
            masked=self.may_abstain,
        )
        self._count_masked(checked)
        return checked

    def stats(self) -> dict[str, float]:
        """Return the counters since the last call, such as `comparisons`, and set them back to zero."""
        with _COUNTING:
            counters = dict(self._counters())
            self._counters().clear()
        return self._summary(counters)

    def identity(self) -> str:
        """Digest of everything that decides an answer: weights, template, limits, version.

        Two judges of equal identity give equal answers, so that kept answers may be used again; a judge that changed
        has another identity.

        Returns:
            32 hexadecimal digits.

        Raises:
            JudgeError: If the judge cannot tell.
        """
        parts = {"judge": f"{type(self).__module__}.{type(self).__qualname__}", **self._identity()}
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @abstractmethod
    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        """Answer N ≥ 1 pairs; the result is validated by the caller."""

    def _iter_pair_win_prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        """Answer N ≥ 1 pairs, batch by batch where that is how answers come; validated by the caller."""
        yield np.arange(len(prompts)), self._pair_win_prob(prompts, first, second)

    def _identity(self) -> Mapping[str, Any]:
        """What decides an answer, as values that JSON can write."""
        raise JudgeError(
            f"judge {self.name!r} does not say what decides its answers, so that they cannot be kept; give its class "
            "a method `_identity` that returns its version and settings"
        )

    def _group_win_prob(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        """Ask about i < j once and fill in the other half with 1 − P."""
        rows, columns = np.triu_indices(len(responses[0]), k=1)
        answer = self._ask(prompts, responses, responses, rows.tolist(), columns.tolist())
        return fill_group(answer, rows, columns)

    def _cross_win_prob(self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups) -> FloatArray:
        """Ask about all G × H pairs."""
        rows, columns = (index.ravel().tolist() for index in np.indices((len(responses[0]), len(opponents[0]))))
        answer = self._ask(prompts, responses, opponents, rows, columns)
        return answer.reshape(len(prompts), len(responses[0]), len(opponents[0]))

    def _ask(
        self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups, rows: list[int], columns: list[int]
    ) -> FloatArray:
        """Ask about the pairs (rows[k], columns[k]) of every prompt in one batch; shape (B, K).

        Equal questions are asked once, and a response against itself is not asked at all: P(y beats y) = 1/2.
        """
        answer_BK = np.full((len(prompts), len(rows)), 0.5)
        questions: dict[tuple[int, str, str], list[int]] = {}
        for b, (mine, theirs) in enumerate(zip(responses, opponents, strict=True)):
            for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
                if mine[i] != theirs[j]:
                    questions.setdefault((b, mine[i], theirs[j]), []).append(b * len(rows) + k)
        if questions:
            asked = [prompts[b] for b, _, _ in questions]
            first, second = [first for _, first, _ in questions], [second for _, _, second in questions]
            answer = self._validated(self._pair_win_prob(asked, first, second), asked, first, second)
            for value, places in zip(answer, questions.values(), strict=True):
                answer_BK.flat[places] = value
        return answer_BK

    def _validated(
        self, answer: object, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> FloatArray:
        return validate_win_prob(
            answer,
            (len(prompts),),
            self.name,
            lambda at: describe_pair(prompts[at[0]], first[at[0]], second[at[0]]),
            masked=self.may_abstain,
        )

    def _count_masked(self, answer: FloatArray) -> None:
        if self.may_abstain:
            self._count("masked", float(np.isnan(answer).sum()))

    def _count(self, counter: str, amount: float) -> None:
        """Add to a counter that the next call of `stats` returns."""
        with _COUNTING:
            counters = self._counters()
            counters[counter] = counters.get(counter, 0.0) + amount

    def _counters(self) -> dict[str, float]:
        # Made on first use, so that a subclass need not call `super().__init__()`.
        return vars(self).setdefault("_counter_values", {})

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        """Turn raw counters into what `stats` returns; override to add ratios."""
        return counters


def fill_group(upper: FloatArray, rows: IndexArray, columns: IndexArray) -> FloatArray:
    """The whole matrix of a group from the pairs i < j: ``P[j, i] = 1 − P[i, j]``, 1/2 on the diagonal.

    Args:
        upper: P(i beats j), shape (B, G (G − 1) / 2).
        rows: i of each pair, as ``np.triu_indices(G, k=1)`` gives it.
        columns: j of each pair likewise.

    Returns:
        Shape (B, G, G).
    """
    size = int(columns.max()) + 1 if columns.size else 1  # no pair: a group of one
    win_prob = np.full((len(upper), size, size), 0.5)
    win_prob[:, rows, columns] = upper
    win_prob[:, columns, rows] = 1.0 - upper
    return win_prob


def collect(batches: Iterable[tuple[IndexArray, FloatArray]], count: int, width: int | None = None) -> FloatArray:
    """Put answers that came batch by batch in order.

    Args:
        batches: Indices and the answers at these indices.
        count: N, how many answers there must be.
        width: D for answers of shape (N, D); None for shape (N,).

    Returns:
        Shape (N,) or (N, D); NaN where no answer came.
    """
    answers = np.full(count if width is None else (count, width), np.nan)
    for index, answer in batches:
        answers[index] = answer
    return answers


def mark_answered(answered: np.ndarray, index: Sequence[int] | IndexArray, judge: str) -> None:
    """Note which questions a batch answers, and raise a `JudgeError` if one was answered before."""
    index = np.asarray(index, dtype=np.intp)
    if answered[index].any() or len(np.unique(index)) < len(index):
        raise JudgeError(f"judge {judge!r} answered a question twice")
    answered[index] = True
