"""The judge protocol: who beats whom, for pairs, for whole groups and against opponents.

Public methods check the question, ask the subclass through a hook whose name starts with an underscore, and check the
answer with `validate_win_prob`. A subclass implements hooks only, so that no judge can skip the checks.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from magnetar.errors import JudgeError
from magnetar.types import Prompt

__all__ = ["Judge", "ScalarJudge", "bradley_terry", "validate_scores", "validate_win_prob"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
Groups = Sequence[Sequence[str]]
SYMMETRY_TOLERANCE = 1e-6
"""How far P + Pᵀ may be from 1: a judge may compute in float32."""


class Judge(ABC):
    """Something that says with what probability one response beats another.

    Subclasses implement `_pair_win_prob`, and override `_group_win_prob` and `_cross_win_prob` where they can answer a
    whole group more cheaply than pair by pair.

    Attributes:
        name: What reports call the judge, for instance "panel" or "reward:MODEL".
    """

    name: str = "judge"

    def pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        """Ask for each pair with what probability the first response beats the second.

        Args:
            prompts: N prompts, text or chat turns.
            first: N responses, one for each prompt.
            second: N responses to the same prompts.

        Returns:
            Shape (N,), in [0, 1]: P(first beats second).

        Raises:
            JudgeError: If the three lengths differ, or an answer is NaN, outside [0, 1] or of the wrong shape.
        """
        _check_text(self.name, "first", first)
        _check_text(self.name, "second", second)
        if not len(prompts) == len(first) == len(second):
            raise JudgeError(
                f"judge {self.name!r} was asked about {len(prompts)} prompts, {len(first)} first and {len(second)} "
                "second responses; give one of each for every pair"
            )
        if not len(prompts):
            return np.zeros(0)
        self._count("comparisons", len(prompts))
        answer = self._pair_win_prob(prompts, first, second)
        return validate_win_prob(
            answer, (len(prompts),), self.name, lambda at: _describe(prompts[at[0]], first[at[0]], second[at[0]])
        )

    def group_win_prob(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        """Compare all responses to the same prompt with each other.

        Args:
            prompts: B prompts.
            responses: B groups of G responses.

        Returns:
            Shape (B, G, G), in [0, 1]: entry (b, i, j) is P(response i beats response j); P + Pᵀ = 1, diagonal 1/2.

        Raises:
            JudgeError: If the groups differ in size, or an answer is NaN, outside [0, 1] or not antisymmetric.
        """
        size = _check_groups(self.name, "responses", prompts, responses)
        if size == 0:
            return np.zeros((len(prompts), 0, 0))
        self._count("comparisons", len(prompts) * size * (size - 1) // 2)
        answer = self._group_win_prob(prompts, responses)
        return validate_win_prob(
            answer,
            (len(prompts), size, size),
            self.name,
            lambda at: _describe(prompts[at[0]], responses[at[0]][at[1]], responses[at[0]][at[2]]),
            antisymmetric=True,
        )

    def cross_win_prob(self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups) -> FloatArray:
        """Compare each response with each opponent's response to the same prompt.

        Args:
            prompts: B prompts.
            responses: B groups of G responses.
            opponents: B groups of H opponents' responses.

        Returns:
            Shape (B, G, H), in [0, 1]: entry (b, g, h) is P(response g beats opponent h).

        Raises:
            JudgeError: If the groups differ in size, or an answer is NaN or outside [0, 1].
        """
        size = _check_groups(self.name, "responses", prompts, responses)
        against = _check_groups(self.name, "opponents", prompts, opponents)
        shape = (len(prompts), size, against)
        if 0 in shape:
            return np.zeros(shape)
        self._count("comparisons", len(prompts) * size * against)
        answer = self._cross_win_prob(prompts, responses, opponents)
        return validate_win_prob(
            answer,
            shape,
            self.name,
            lambda at: _describe(prompts[at[0]], responses[at[0]][at[1]], opponents[at[0]][at[2]]),
        )

    def stats(self) -> dict[str, float]:
        """Return the counters since the last call, such as `comparisons`, and set them back to zero."""
        counters = dict(self._counters())
        self._counters().clear()
        return self._summary(counters)

    @abstractmethod
    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        """Answer N ≥ 1 pairs; the result is validated by the caller."""

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
        """Ask about the pairs (rows[k], columns[k]) of every prompt in one batch; shape (B, K)."""
        shape = (len(prompts), len(rows))
        if 0 in shape:
            return np.zeros(shape)
        first = [group[i] for group in responses for i in rows]
        second = [group[j] for group in opponents for j in columns]
        repeated = [prompt for prompt in prompts for _ in rows]
        answer = self._pair_win_prob(repeated, first, second)
        flat = validate_win_prob(
            answer, (len(first),), self.name, lambda at: _describe(repeated[at[0]], first[at[0]], second[at[0]])
        )
        return flat.reshape(shape)

    def _count(self, counter: str, amount: float) -> None:
        """Add to a counter that the next call of `stats` returns."""
        counters = self._counters()
        counters[counter] = counters.get(counter, 0.0) + amount

    def _counters(self) -> dict[str, float]:
        # Made on first use, so that a subclass need not call `super().__init__()`.
        return vars(self).setdefault("_counter_values", {})

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        """Turn raw counters into what `stats` returns; override to add ratios."""
        return counters


class ScalarJudge(Judge):
    """A judge that scores each response by itself: G scores a group give all G² win probabilities.

    The win probability is Bradley and Terry's, ``P(i beats j) = σ((s_i − s_j) / temperature)``, which is transitive.

    Attributes:
        temperature: Difference in score that gives odds of e to 1; positive, in units of the score.
    """

    temperature: float = 1.0

    def scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        """Score N responses, one for each prompt; higher is better.

        Args:
            prompts: N prompts.
            responses: N responses.

        Returns:
            Shape (N,), finite.

        Raises:
            JudgeError: If the lengths differ, or a score is not finite or the shape is wrong.
        """
        _check_text(self.name, "responses", responses)
        if len(prompts) != len(responses):
            raise JudgeError(
                f"judge {self.name!r} was asked to score {len(responses)} responses to {len(prompts)} prompts; "
                "give one prompt for each response"
            )
        if not len(prompts):
            return np.zeros(0)
        self._count("responses", len(responses))
        return validate_scores(self._scores(prompts, responses), prompts, responses, self.name)

    @abstractmethod
    def _scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        """Score N ≥ 1 responses; the result is validated by the caller."""

    def _group_scores(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        repeated = [prompt for prompt, group in zip(prompts, responses, strict=True) for _ in group]
        return self.scores(repeated, [text for group in responses for text in group]).reshape(len(prompts), -1)

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        # One batch for both sides: a model reads the shared prompts together.
        both = self.scores([*prompts, *prompts], [*first, *second])
        return bradley_terry(both[: len(first)], both[len(first) :], self.temperature)

    def _group_win_prob(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        scores_BG = self._group_scores(prompts, responses)
        rows, columns = np.triu_indices(scores_BG.shape[1], k=1)
        upper = bradley_terry(scores_BG[:, rows], scores_BG[:, columns], self.temperature)
        return fill_group(upper, rows, columns)

    def _cross_win_prob(self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups) -> FloatArray:
        both = self._group_scores(
            prompts, [[*mine, *theirs] for mine, theirs in zip(responses, opponents, strict=True)]
        )
        size = len(responses[0])
        return bradley_terry(both[:, :size, None], both[:, None, size:], self.temperature)


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


def bradley_terry(first: FloatArray, second: FloatArray, temperature: float) -> FloatArray:
    """Win probability of one score over another, ``σ((first − second) / temperature)``.

    Args:
        first: Scores, any shape.
        second: Scores, a shape that broadcasts with it.
        temperature: Positive, in units of the score.

    Returns:
        The broadcast shape, in [0, 1].
    """
    return expit((first - second) / temperature)


def validate_scores(answer: object, prompts: Sequence[Prompt], responses: Sequence[str], judge: str) -> FloatArray:
    """Check that scores are N finite numbers.

    Args:
        answer: What the judge returned.
        prompts: The N prompts asked about.
        responses: The N responses asked about.
        judge: Name of the judge, for the message.

    Returns:
        The scores as float64, shape (N,).

    Raises:
        JudgeError: Naming the first bad score, its value and the response.
    """
    scores = _as_array(answer, (len(responses),), judge, "scores")
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        at = int(bad[0])
        raise JudgeError(
            f"judge {judge!r} scored response {at} {scores[at]}, expected a finite number; "
            f"prompt {_short(prompts[at])}, response {_short(responses[at])}"
        )
    return scores


def validate_win_prob(
    answer: object,
    shape: tuple[int, ...],
    judge: str,
    describe: Callable[[tuple[int, ...]], str] | None = None,
    *,
    antisymmetric: bool = False,
) -> FloatArray:
    """Check that an answer consists of win probabilities.

    Args:
        answer: What the judge returned, anything NumPy can read.
        shape: The shape it must have.
        judge: Name of the judge, for the message.
        describe: Says in words which pair an index stands for.
        antisymmetric: Whether the last two axes must hold ``P + Pᵀ = 1``, the diagonal 1/2.

    Returns:
        The answer as float64.

    Raises:
        JudgeError: Naming the first bad entry, its value, the expectation and the pair.
    """
    win_prob = _as_array(answer, shape, judge, "win probabilities")

    def where(at: tuple[int, ...]) -> str:
        return f"; {describe(at)}" if describe else ""

    # NaN compares false, so that the negation catches it too.
    bad = np.argwhere(~((win_prob >= 0.0) & (win_prob <= 1.0)))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise JudgeError(
            f"judge {judge!r} answered P{list(at)} = {win_prob[at]}, expected a win probability in [0, 1]{where(at)}"
        )
    if antisymmetric:
        excess = np.abs(win_prob + win_prob.swapaxes(-1, -2) - 1.0)
        bad = np.argwhere(excess > SYMMETRY_TOLERANCE)
        if len(bad):
            at = tuple(int(i) for i in bad[0])
            back = (*at[:-2], at[-1], at[-2])
            raise JudgeError(
                f"judge {judge!r} answered P{list(at)} + P{list(back)} = {win_prob[at] + win_prob[back]:.6g}, "
                f"expected 1; wrap the judge in Symmetrized{where(at)}"
            )
    return win_prob


def _as_array(answer: object, shape: tuple[int, ...], judge: str, what: str) -> FloatArray:
    try:
        array = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise JudgeError(
            f"judge {judge!r} returned {type(answer).__name__}, which is not an array of numbers ({error}); "
            f"expected {what} of shape {shape}"
        ) from error
    if array.shape != shape:
        raise JudgeError(f"judge {judge!r} returned an array of shape {array.shape}, expected {what} of shape {shape}")
    return array


def _check_groups(judge: str, what: str, prompts: Sequence[Prompt], groups: Groups) -> int:
    """Check that there are B groups of one size, and return that size."""
    if len(prompts) != len(groups):
        raise JudgeError(
            f"judge {judge!r} was given {len(prompts)} prompts and {len(groups)} groups of {what}; "
            "give one group for each prompt"
        )
    for at, group in enumerate(groups):
        _check_text(judge, f"{what}[{at}]", group)
        if len(group) != len(groups[0]):
            raise JudgeError(
                f"judge {judge!r}: {what}[{at}] holds {len(group)} texts and {what}[0] holds {len(groups[0])}; "
                "all groups of one call must have the same size"
            )
    return len(groups[0]) if len(groups) else 0


def _check_text(judge: str, what: str, texts: Sequence[str]) -> None:
    # A bare string is a sequence of strings too, and would be judged letter by letter.
    if isinstance(texts, str):
        raise JudgeError(f"judge {judge!r}: {what} is one text {_short(texts)}, expected a sequence of texts")
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            raise JudgeError(f"judge {judge!r}: {what}[{at}] is a {type(text).__name__}, expected text")


def _describe(prompt: Prompt, first: str, second: str) -> str:
    return f"prompt {_short(prompt)}, first {_short(first)}, second {_short(second)}"


def _short(value: Prompt, limit: int = 80) -> str:
    text = value if isinstance(value, str) else " / ".join(turn.get("content", "") for turn in value)
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
