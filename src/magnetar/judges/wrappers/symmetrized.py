"""A judge asked in both orders."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from magnetar.judges.base import Judge
from magnetar.judges.checks import FloatArray
from magnetar.types import Prompt

__all__ = ["Symmetrized"]


class Symmetrized(Judge):
    """Ask in both orders and average, so that the place of a response cannot decide.

    ``P(a beats b) = (P(a, b) + 1 − P(b, a)) / 2``; then ``P + Pᵀ = 1`` holds whatever the inner judge says. `stats`
    adds `flip_rate`, the share of pairs whose winner changes with the order (a tie in either order is no flip), and
    the inner judge's own counters under the prefix ``inner_``.
    """

    def __init__(self, judge: Judge) -> None:
        """Wrap a judge.

        Args:
            judge: The judge whose order bias is to be removed.
        """
        self.judge = judge
        self.name = judge.name

    @property
    def may_abstain(self) -> bool:  # type: ignore[override]
        """Whether the inner judge may; a pair needs both of its orders."""
        return self.judge.may_abstain

    def _identity(self) -> Mapping[str, Any]:
        return {"inner": self.judge.identity()}

    def _pair_win_prob(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> FloatArray:
        # One call, so that a model can batch both orders.
        both = self.judge.pair_win_prob([*prompts, *prompts], [*first, *second], [*second, *first])
        forward, backward = both[: len(first)], 1.0 - both[len(first) :]
        self._count("flips", float(np.sum((forward - 0.5) * (backward - 0.5) < 0.0)))
        self._count("ordered_pairs", len(first))
        return (forward + backward) / 2.0

    def _summary(self, counters: dict[str, float]) -> dict[str, float]:
        flips, asked = counters.pop("flips", 0.0), counters.pop("ordered_pairs", 0.0)
        if asked:
            counters["flip_rate"] = flips / asked
        return counters | {f"inner_{name}": value for name, value in self.judge.stats().items()}
