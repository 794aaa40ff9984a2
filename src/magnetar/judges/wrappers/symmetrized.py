"""A judge asked in both orders."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from magnetar.judges.base import Judge
from magnetar.judges.checks import FloatArray, IndexArray
from magnetar.judges.wrappers.relay import gather
from magnetar.types import Prompt

__all__ = ["Symmetrized"]


class Symmetrized(Judge):
    """Ask in both orders and average, so that the place of a response cannot decide.

    ``P(a beats b) = (P(a, b) + 1 − P(b, a)) / 2``; then ``P + Pᵀ = 1`` holds whatever the inner judge says. A pair is
    masked when either order is. `stats` adds `flip_rate`, the share of pairs whose winner changes with the order (a tie
    in either order is no flip), and the inner judge's own counters under the prefix ``inner_``.
    """

    def __init__(self, judge: Judge) -> None:
        """Wrap a judge.

        Args:
            judge: The judge whose order bias is to be removed.
        """
        self.judge = judge
        self.name = judge.name
        self.may_abstain = judge.may_abstain

    @property
    def calls_at_once(self) -> int:  # type: ignore[override]
        """As many as of the judge inside."""
        return self.judge.calls_at_once

    def leaves_free(self, device: str) -> bool:
        """Whether the judge inside does."""
        return self.judge.leaves_free(device)

    def _identity(self) -> Mapping[str, Any]:
        return {"inner": self.judge.identity()}

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        return gather(self._iter_pair_win_prob(prompts, first, second), len(prompts), self.name)

    def _iter_pair_win_prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Iterator[tuple[IndexArray, FloatArray]]:
        # One call, so that a model can batch both orders; side by side, so that pairs are finished one after another.
        twice = [prompt for prompt in prompts for _ in range(2)]
        both = [pair for a, b in zip(first, second, strict=True) for pair in ((a, b), (b, a))]
        asked = twice, [a for a, _ in both], [b for _, b in both]
        answers = np.full(len(both), np.nan)
        answered = np.zeros(len(both), dtype=bool)
        for index, part in self.judge.iter_pair_win_prob(*asked):
            answers[index] = part
            answered[index] = True
            # The other order of question 2 k is question 2 k + 1. Both may have come at once.
            pairs = np.unique(index[answered[index ^ 1]] // 2)
            if len(pairs):
                yield pairs, self._mean(answers[2 * pairs], 1.0 - answers[2 * pairs + 1])

    def _mean(self, forward: FloatArray, backward: FloatArray) -> FloatArray:
        self._count("flips", float(np.sum((forward - 0.5) * (backward - 0.5) < 0.0)))
        self._count("ordered_pairs", float(np.sum(~np.isnan(forward + backward))))
        return (forward + backward) / 2.0

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        flips, asked = counters.pop("flips", 0.0), counters.pop("ordered_pairs", 0.0)
        if asked:
            counters["flip_rate"] = flips / asked
        return counters | {f"inner_{name}": value for name, value in self.judge.stats().items()}
