"""A judge who answers some pairs the wrong way round, to see what noise in preferences does to a method."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from magnetar.errors import JudgeError, checked_integer
from magnetar.judges.base import Judge
from magnetar.judges.checks import FloatArray, Groups, IndexArray
from magnetar.judges.wrappers.keys import canonical_prompt
from magnetar.numerics import drawn_number
from magnetar.types import Prompt

__all__ = ["Flipped", "check_flips"]


class Flipped(Judge):
    r"""Answer a fixed, random share of the pairs the wrong way round.

    ``P'(i beats j) = 1 − P(i beats j)`` for the pairs that are drawn, and ``P`` for the others. A pair is drawn by a
    digest of the seed, the prompt and both responses in either order, so that ``P' + P'ᵀ = 1``, and the same pair is
    answered alike in every group, process and run. Over pairs drawn with share ε the mean is

    ``E P' = (1 − 2 ε) P + ε``,

    a game with the same equilibria as P for ε < 1/2. That is a statement about the mean: among few responses that meet
    again and again, the one draw that was made is another game. A response against itself stays at 1/2. `stats` adds
    `flipped_share`, and the judge's own counters under the prefix ``inner_``. A judge that scores is no longer one:
    flipped pairs fit no score.
    """

    def __init__(self, judge: Judge, share: float, seed: int = 0) -> None:
        """Wrap a judge.

        Args:
            judge: The judge who is to err; asked in both orders already, where its answers depend on the order.
            share: ε, probability that a pair is answered the wrong way round, in [0, 1].
            seed: Which pairs.

        Raises:
            JudgeError: The share or the seed cannot be.
        """
        check_flips(share, seed)
        self.judge = judge
        self.share = float(share)
        self.seed = seed
        self.name = f"{judge.name}, {share:g} flipped"
        self.may_abstain = judge.may_abstain

    @property
    def calls_at_once(self) -> int:  # type: ignore[override]
        """As many as of the judge inside."""
        return self.judge.calls_at_once

    def leaves_free(self, device: str) -> bool:
        """Whether the judge inside does."""
        return self.judge.leaves_free(device)

    def _identity(self) -> Mapping[str, Any]:
        return {"inner": self.judge.identity(), "share": self.share, "seed": self.seed}

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        return self._turned(self.judge.pair_win_prob(prompts, first, second), self._drawn(prompts, first, second))

    def _iter_pair_win_prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        drawn = self._drawn(prompts, first, second)
        for index, answers in self.judge.iter_pair_win_prob(prompts, first, second):
            yield index, self._turned(answers, drawn[index])

    def _group_win_prob(self, prompts: Sequence[Prompt], responses: Groups) -> FloatArray:
        return self._many(self.judge.group_win_prob(prompts, responses), prompts, responses, responses)

    def _cross_win_prob(self, prompts: Sequence[Prompt], responses: Groups, opponents: Groups) -> FloatArray:
        return self._many(self.judge.cross_win_prob(prompts, responses, opponents), prompts, responses, opponents)

    def _many(
        self, win_prob: FloatArray, prompts: Sequence[Prompt], responses: Groups, opponents: Groups
    ) -> FloatArray:
        drawn = np.zeros(win_prob.shape, dtype=bool)
        for b, prompt in enumerate(prompts):
            size, against = win_prob.shape[1:]
            first = [responses[b][g] for g in range(size) for _ in range(against)]
            second = [opponents[b][h] for _ in range(size) for h in range(against)]
            drawn[b] = self._drawn([prompt] * len(first), first, second).reshape(size, against)
        return self._turned(win_prob, drawn)

    def _drawn(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """Whether each pair is answered the wrong way round."""
        asked = list(prompts)  # keeps every prompt alive, so that no two can have one `id`
        texts: dict[int, str] = {}
        drawn = np.zeros(len(asked), dtype=bool)
        for at, (prompt, a, b) in enumerate(zip(asked, first, second, strict=True)):
            if a == b:
                continue
            if id(prompt) not in texts:
                texts[id(prompt)] = canonical_prompt(prompt)
            text = texts[id(prompt)]
            low, high = sorted((a, b))
            # Lengths keep two pairs from running together.
            drawn[at] = drawn_number(f"{len(text)} {len(low)} {text}{low}{high}", self.seed) < self.share
        return drawn

    def _turned(self, win_prob: FloatArray, drawn: np.ndarray) -> FloatArray:
        self._count("turned", float(np.sum(drawn)))
        self._count("asked", float(np.size(drawn)))
        return np.where(drawn, 1.0 - win_prob, win_prob)

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        turned, asked = counters.pop("turned", 0.0), counters.pop("asked", 0.0)
        if asked:
            counters["flipped_share"] = turned / asked
        return counters | {f"inner_{name}": value for name, value in self.judge.stats().items()}


def check_flips(share: object, seed: object = 0) -> None:
    """Check the settings of `Flipped`.

    Raises:
        JudgeError: The share is outside [0, 1], or the seed is no whole number of at least 0.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
        raise JudgeError(f"flip_share is {share!r}, expected a share of the pairs, from 0 to 1")
    checked_integer("flip_seed", seed, 0, JudgeError)
