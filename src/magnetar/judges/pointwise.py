"""Judges that read each response by itself, and so need G readings for the G² win probabilities of a group."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from magnetar.errors import JudgeError
from magnetar.judges.base import Judge, fill_group, mark_answered
from magnetar.judges.checks import FloatArray, Groups, IndexArray, check_text, validate_features
from magnetar.types import Prompt

__all__ = ["PointwiseJudge", "ScalarJudge", "bradley_terry"]


class PointwiseJudge(Judge):
    """A judge that turns each response into a few numbers and compares these numbers.

    A reward model has one number for a response (`ScalarJudge`), a general preference model an embedding, a panel one
    score for each annotator. Subclasses implement `_features` and `compare`, and override `_iter_features` where
    answers are finished batch by batch.
    """

    def features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        """Read N responses, one for each prompt.

        Args:
            prompts: N prompts.
            responses: N responses.

        Returns:
            Shape (N, D), finite.

        Raises:
            JudgeError: If the lengths differ, or a value is not finite or the shape is wrong.
        """
        self._check_responses(prompts, responses)
        if not len(prompts):
            return np.zeros((0, 1))
        self._count("responses", len(responses))
        return validate_features(self._features(prompts, responses), prompts, responses, self.name)

    def iter_features(
        self, prompts: Sequence[Prompt], responses: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        """Read as in `features`, and get rows as they are finished; what has been yielded is final.

        Args:
            prompts: N prompts.
            responses: N responses.

        Yields:
            Indices into the N responses and their rows, shape (n, D); together each index exactly once, in any order.

        Raises:
            JudgeError: As `features`; a row that is missing or given twice is an error too.
        """
        self._check_responses(prompts, responses)
        if not len(prompts):
            return
        self._count("responses", len(responses))
        answered = np.zeros(len(prompts), dtype=bool)
        for index, answer in self._iter_features(prompts, responses):
            asked, read = [prompts[int(at)] for at in index], [responses[int(at)] for at in index]
            features = validate_features(answer, asked, read, self.name)
            mark_answered(answered, index, self.name)
            yield np.asarray(index, dtype=np.intp), features
        if not answered.all():
            raise JudgeError(f"judge {self.name!r} read {int(answered.sum())} of {len(answered)} responses")

    @abstractmethod
    def compare(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Win probability from features alone.

        Args:
            first: Shape (..., D).
            second: A shape that broadcasts with it.

        Returns:
            P(first beats second), the broadcast shape without D; ``compare(a, b) + compare(b, a) = 1``.
        """

    def comparison(self) -> Mapping[str, Any] | None:
        """Name `compare` in a way that can be written down, so that recorded features can be compared again.

        Returns:
            Its "rule", a key of `magnetar.judges.comparisons.COMPARISONS`, and the settings of that function; None for
            a comparison that has no name.
        """
        return None

    @abstractmethod
    def _features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        """Read N ≥ 1 responses: shape (N, D), or (N,) for D = 1; the result is validated by the caller."""

    def _iter_features(
        self, prompts: Sequence[Prompt], responses: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        """Read N ≥ 1 responses, batch by batch where that is how answers come; validated by the caller."""
        yield np.arange(len(prompts)), self._features(prompts, responses)

    def _check_responses(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> None:
        check_text(self.name, "responses", responses)
        if len(prompts) != len(responses):
            raise JudgeError(
                f"judge {self.name!r} was asked to score {len(responses)} responses to {len(prompts)} prompts; "
                "give one prompt for each response"
            )

    def _group_features(self, prompts: Sequence[Prompt], groups: Groups) -> FloatArray:
        """Read all responses of all groups, equal ones once; shape (B, G, D)."""
        places: dict[tuple[int, str], int] = {}
        order = [places.setdefault((b, text), len(places)) for b, group in enumerate(groups) for text in group]
        flat = self.features([prompts[b] for b, _ in places], [text for _, text in places])
        return flat[order].reshape(len(prompts), -1, flat.shape[-1])

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        # One batch for both sides: a model reads the shared prompts together.
        both = self.features([*prompts, *prompts], [*first, *second])
        return self.compare(both[: len(first)], both[len(first) :])

    def _group_win_prob(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        features = self._group_features(prompts, responses)
        rows, columns = np.triu_indices(features.shape[1], k=1)
        return fill_group(self.compare(features[:, rows], features[:, columns]), rows, columns)

    def _cross_win_prob(self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups) -> FloatArray:
        both = self._group_features(
            prompts, [[*mine, *theirs] for mine, theirs in zip(responses, opponents, strict=True)]
        )
        size = len(responses[0])
        return self.compare(both[:, :size, None], both[:, None, size:])


class ScalarJudge(PointwiseJudge):
    """A judge that scores each response with one number.

    The win probability is Bradley and Terry's, ``P(i beats j) = σ((s_i − s_j) / temperature)``, which is transitive.
    Subclasses implement `_scores`, and override `_iter_features` where scores are finished batch by batch.

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
        return self.features(prompts, responses)[:, 0]

    def compare(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Win probability of one score over another, shapes (..., 1)."""
        return bradley_terry(first[..., 0], second[..., 0], self.temperature)

    def comparison(self) -> Mapping[str, Any] | None:
        """Bradley and Terry's, with the temperature; None for a subclass that compares otherwise."""
        if type(self).compare is not ScalarJudge.compare:
            return None
        return {"rule": "bradley_terry", "temperature": self.temperature}

    def _features(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        answer = self._scores(prompts, responses)
        if np.ndim(answer) > 1 and np.shape(answer)[1] != 1:
            raise JudgeError(f"judge {self.name!r} gave {np.shape(answer)[1]} scores for each response, expected 1")
        return answer

    @abstractmethod
    def _scores(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> FloatArray:
        """Score N ≥ 1 responses; the result is validated by the caller."""


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
