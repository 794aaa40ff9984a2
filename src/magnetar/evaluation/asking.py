"""Asking a judge about groups of responses: in both orders where it sees an order, each response once where not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.pairs import Pairs, ask_pairs
from magnetar.evaluation.judging.resampling import Resampling, estimate_all
from magnetar.evaluation.judging.statistics import mean, sides
from magnetar.judges import CombinedJudge, Judge, MatrixJudge
from magnetar.judges.pointwise import PointwiseJudge
from magnetar.judges.wrappers import Symmetrized
from magnetar.judges.wrappers.relay import RelayedJudge
from magnetar.types import Prompt

__all__ = ["GroupAsker", "JudgedGroups", "OrderRecord", "order_record", "sees_order"]

FloatArray = NDArray[np.float64]
PROMPTS_AT_ONCE = 16
INNER = "inner_"
RATIOS = ("_share", "_rate", "_mean", "disagreement")


@dataclass(frozen=True)
class OrderRecord:
    """What the place of a response does to a judge's answer.

    Attributes:
        shown_first: The policy's win rate where its responses are shown first, in [0, 1].
        shown_second: The policy's win rate where they are shown second.
        first_place: Mean probability that the response shown first wins, whosever it is; one half without order bias.
        flip_rate: Share of pairs whose winner changes with the order.
    """

    shown_first: float
    shown_second: float
    first_place: Estimate
    flip_rate: float


@dataclass(frozen=True)
class JudgedGroups:
    """Each response of one side against each of the other.

    Attributes:
        first_BGH: P(the first side's response wins) where it is shown first; NaN where the judge abstained.
        second_BGH: P(the first side's response wins) where it is shown second; None for a judge that sees no order, or
            was asked in one only.
    """

    first_BGH: FloatArray
    second_BGH: FloatArray | None = None

    @property
    def win_prob_BGH(self) -> FloatArray:
        """The judge's answer: the mean of both orders, NaN where either is missing."""
        return self.first_BGH if self.second_BGH is None else (self.first_BGH + self.second_BGH) / 2.0

    def swapped(self) -> "JudgedGroups":
        """The same for the other side: shape (B, H, G)."""
        turned = 1.0 - self.first_BGH.transpose(0, 2, 1)
        if self.second_BGH is None:
            return JudgedGroups(turned)
        return JudgedGroups(1.0 - self.second_BGH.transpose(0, 2, 1), turned)

    def select(self, rows: Sequence[int]) -> "JudgedGroups":
        """Some of the prompts."""
        at = np.asarray(rows, dtype=np.intp)
        return JudgedGroups(self.first_BGH[at], None if self.second_BGH is None else self.second_BGH[at])


class GroupAsker:
    """Puts groups of responses to one judge; what a pointwise judge makes of a response is remembered by player.

    Attributes:
        judge: Who is asked.
        prompts: B prompts, the same for all.
        counts: What the judge counted so far, by name: comparisons, calls, tokens; without its ratios.
    """

    def __init__(self, judge: Judge, prompts: Sequence[Prompt]) -> None:
        """Remember whom to ask about what."""
        self.judge = judge
        self.prompts = list(prompts)
        self.counts: dict[str, float] = {}
        self._features: dict[str, FloatArray] = {}

    def compare(
        self,
        first: str,
        first_texts: Sequence[Sequence[str]],
        second: str,
        second_texts: Sequence[Sequence[str]],
        *,
        both_orders: bool = True,
    ) -> JudgedGroups:
        """Compare each response of one player with each of another.

        Args:
            first: Name of the one player; responses of a name must not change between calls.
            first_texts: B groups of G responses.
            second: Name of the other.
            second_texts: B groups of H responses.
            both_orders: Whether a judge that sees an order is asked in both, whatever is around it; otherwise it is
                asked as it is, the first player's responses first.

        Returns:
            The answers.

        Raises:
            JudgeError: The judge fails.
        """
        if isinstance(self.judge, PointwiseJudge):
            self.read({first: first_texts, second: second_texts})
            mine, theirs = self._features[first], self._features[second]
            return JudgedGroups(np.asarray(self.judge.compare(mine[:, :, None], theirs[:, None, :])))
        parts = [
            self._ask(rows, first_texts[rows], second_texts[rows], both_orders)
            for rows in _slices(len(self.prompts), PROMPTS_AT_ONCE)
        ]
        seconds = [part.second_BGH for part in parts if part.second_BGH is not None]
        return JudgedGroups(
            np.concatenate([part.first_BGH for part in parts]), np.concatenate(seconds) if seconds else None
        )

    def features(self, name: str, texts: Sequence[Sequence[str]]) -> FloatArray:
        """What a pointwise judge makes of a player's responses, shape (B, G, D)."""
        self.read({name: texts})
        return self._features[name]

    def read(self, players: Mapping[str, Sequence[Sequence[str]]], *, progress: str | None = None) -> None:
        """Let a pointwise judge read the responses of several players, prompt by prompt, for all later questions.

        A model reads what inputs have in common once, so that a prompt costs as much for ten players as for one. Other
        judges are asked about pairs, and this does nothing.

        Args:
            players: For each name B groups of responses; names that were read before are passed over.
            progress: Words of a progress bar; None for none.

        Raises:
            JudgeError: The judge fails.
        """
        new = {name: texts for name, texts in players.items() if name not in self._features}
        if not new or not isinstance(self.judge, PointwiseJudge):
            return
        parts: dict[str, list[FloatArray]] = {name: [] for name in new}
        with tqdm(total=len(self.prompts), desc=progress, unit="prompt", disable=progress is None, leave=False) as bar:
            for rows in _slices(len(self.prompts), PROMPTS_AT_ONCE):
                together = [[text for one in new.values() for text in one[row]] for row in range(rows.start, rows.stop)]
                asked = [p for p, group in zip(self.prompts[rows], together, strict=True) for _ in group]
                flat = self.judge.features(asked, [text for group in together for text in group])
                self._add(self.judge.stats())
                at = 0
                for row in range(rows.start, rows.stop):
                    for name, texts in new.items():
                        parts[name].append(flat[at : at + len(texts[row])])
                        at += len(texts[row])
                bar.update(rows.stop - rows.start)
        self._features |= {name: np.stack(found) for name, found in parts.items()}

    def _ask(
        self, rows: slice, first: Sequence[Sequence[str]], second: Sequence[Sequence[str]], both_orders: bool
    ) -> JudgedGroups:
        prompts = self.prompts[rows]
        if not (both_orders and sees_order(self.judge)):
            return JudgedGroups(self.judge.cross_win_prob(prompts, first, second))
        places: dict[tuple[int, str, str], list[tuple[int, int, int]]] = {}
        for b, (mine, theirs) in enumerate(zip(first, second, strict=True)):
            for g, one in enumerate(mine):
                for h, other in enumerate(theirs):
                    if one != other:  # a response against itself is a tie, and is not asked
                        places.setdefault((b, one, other), []).append((b, g, h))
        shape = (len(prompts), len(first[0]), len(second[0]))
        answers = JudgedGroups(np.full(shape, 0.5), np.full(shape, 0.5))
        if places:
            asked = Pairs(
                [prompts[b] for b, _, _ in places], [one for _, one, _ in places], [other for *_, other in places]
            )
            judged = ask_pairs(self.judge, asked)
            self._add(judged.counters)
            assert judged.backward_N is not None and answers.second_BGH is not None
            for forward, backward, found in zip(judged.forward_N, judged.backward_N, places.values(), strict=True):
                for place in found:
                    answers.first_BGH[place] = forward
                    answers.second_BGH[place] = backward
        return answers

    def _add(self, counters: Mapping[str, float]) -> None:
        """Add one call's counters; of what a cache and the judge inside both count, the judge's count."""
        deepest: dict[str, float] = {}
        for name in sorted(counters, key=lambda name: name.count(INNER)):
            if not name.endswith(RATIOS):
                deepest[name.replace(INNER, "")] = counters[name]
        for name, value in deepest.items():
            self.counts[name] = self.counts.get(name, 0.0) + value


def sees_order(judge: Judge) -> bool:
    """Whether asking a judge in both orders tells anything.

    It does not for one that reads each response by itself, nor for a table, nor for a panel whose members are such
    judges or are asked in both orders themselves.
    """
    if isinstance(judge, PointwiseJudge | MatrixJudge):
        return False
    if isinstance(judge, RelayedJudge):
        return sees_order(judge.judge)
    if isinstance(judge, CombinedJudge):
        return any(sees_order(one) and not isinstance(one, Symmetrized) for one in judge.judges.values())
    return True


def order_record(judged: Sequence[JudgedGroups], resampling: Resampling) -> OrderRecord | None:
    """What the order did, over one or several judged match-ups of the same prompts.

    Args:
        judged: All for the same policy as the first side.
        resampling: How the interval over prompts is made.

    Returns:
        The figures; None where no pair was answered in both orders.
    """
    if any(one.second_BGH is None for one in judged):
        return None
    prompts = len(judged[0].first_BGH)
    first = np.concatenate([one.first_BGH.reshape(prompts, -1) for one in judged], axis=1)
    second = np.concatenate([np.asarray(one.second_BGH).reshape(prompts, -1) for one in judged], axis=1)
    answered = ~np.isnan(first + second)
    if not answered.any():
        return None
    cluster = np.unique(np.nonzero(answered)[0], return_inverse=True)[1]
    first_N, second_N = first[answered], second[answered]
    statistic = mean((first_N + 1.0 - second_N) / 2.0, share=True)
    return OrderRecord(
        float(first_N.mean()),
        float(second_N.mean()),
        estimate_all({"first": statistic}, cluster, resampling)["first"],
        float((np.abs(sides(first_N) - sides(second_N)) == 1.0).mean()),
    )


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
