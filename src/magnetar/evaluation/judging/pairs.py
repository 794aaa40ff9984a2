"""Pairs put to a judge in both orders, groups put to it whole, and what it answered."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from magnetar.errors import DataError
from magnetar.judges import Judge, PointwiseJudge, Symmetrized
from magnetar.types import Prompt

__all__ = ["JudgedPairs", "Pairs", "ask_groups", "ask_pairs", "prompt_numbers"]

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]

PAIRS_PER_CALL = 512
"""Enough to sort by length; a judge that gives all answers of a call at once loses no more than these when killed."""
GROUPS_PER_CALL = 64


@dataclass(frozen=True)
class Pairs:
    """Pairs of responses, with labels or without.

    Attributes:
        prompts: N prompts, text or chat turns.
        first: N responses.
        second: N responses to the same prompts.
        label_N: P(first beats second) by the labels, in [0, 1]; None without labels.
        categories: One label of kind for each pair; None without.
    """

    prompts: Sequence[Prompt]
    first: Sequence[str]
    second: Sequence[str]
    label_N: FloatArray | None = None
    categories: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check the lengths and the labels."""
        if not len(self.prompts):
            raise DataError("no pairs to judge, expected at least one; is the file or its split empty?")
        for name in ("first", "second", "label_N", "categories"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.prompts):
                raise DataError(
                    f"{len(value)} entries of {name} for {len(self.prompts)} prompts, expected one for each"
                )
        if self.label_N is not None:
            bad = np.flatnonzero(~((self.label_N >= 0.0) & (self.label_N <= 1.0)))
            if len(bad):
                raise DataError(f"row {bad[0]}: win_prob is {self.label_N[bad[0]]}, expected a probability in [0, 1]")

    def __len__(self) -> int:
        return len(self.prompts)

    @classmethod
    def of(cls, rows: Any) -> "Pairs":
        """Read preference rows.

        Args:
            rows: `Pairs`, or a `datasets.Dataset` or another mapping of columns with ``prompt``, ``first``, ``second``
                and perhaps ``win_prob`` and ``category``, as `magnetar.data.load_preferences` returns it.

        Raises:
            DataError: A column is missing or empty, or a label is no probability.
        """
        if isinstance(rows, Pairs):
            return rows
        names = list(getattr(rows, "column_names", None) or rows)
        for name in ("prompt", "first", "second"):
            if name not in names:
                raise DataError(
                    f"the pairs have no column {name!r}, only {', '.join(map(repr, names))}; magnetar.data."
                    "load_preferences makes the columns prompt, first, second, win_prob of any preference data"
                )
        return cls(
            list(rows["prompt"][:]),
            list(rows["first"][:]),
            list(rows["second"][:]),
            np.asarray(rows["win_prob"][:], dtype=np.float64) if "win_prob" in names else None,
            list(rows["category"][:]) if "category" in names else None,
        )

    def select(self, rows: Sequence[int]) -> "Pairs":
        """Some of the pairs, in the given order."""
        return Pairs(
            [self.prompts[row] for row in rows],
            [self.first[row] for row in rows],
            [self.second[row] for row in rows],
            None if self.label_N is None else self.label_N[np.asarray(rows, dtype=np.intp)],
            None if self.categories is None else [self.categories[row] for row in rows],
        )


@dataclass(frozen=True)
class JudgedPairs:
    """A judge's answers to pairs.

    Attributes:
        pairs: The pairs.
        judge: Name of the judge.
        forward_N: P(first beats second) when asked in this order; NaN where the judge abstained.
        backward_N: P(first beats second) when asked the other way round; None for a pointwise judge, which reads each
            response by itself, so that there is no order.
        averaged: Whether the judge's answer is the mean of both orders (`Symmetrized`), not one of them.
        counters: The judge's `stats` over these questions.
        scores_N2: Scores of first and second by a judge that gives one number to each response; None for others.
    """

    pairs: Pairs
    judge: str
    forward_N: FloatArray
    backward_N: FloatArray | None
    averaged: bool
    counters: dict[str, float] = field(default_factory=dict)
    scores_N2: FloatArray | None = None

    @property
    def win_prob_N(self) -> FloatArray:
        """The judge's answer: P(first beats second), the mean of both orders where it asks both; NaN for masked."""
        if self.backward_N is not None and self.averaged:
            return (self.forward_N + self.backward_N) / 2.0
        return self.forward_N

    @property
    def answers_NK(self) -> FloatArray:
        """Every answer that counts: K = 1, or K = 2 for a judge whose answer depends on the order it is asked in.

        A judge that is asked in one order only may profit when "chosen" always stands first, so both orders count,
        each one half.
        """
        if self.backward_N is None or self.averaged:
            return self.win_prob_N[:, None]
        return np.stack([self.forward_N, self.backward_N], axis=1)

    @property
    def answered_N(self) -> NDArray[np.bool_]:
        """Where no answer is missing."""
        return np.asarray(~np.isnan(self.answers_NK).any(axis=1))


def ask_pairs(
    judge: Judge,
    pairs: Any,
    *,
    on_progress: Callable[[int], None] | None = None,
    progress: bool = False,
) -> JudgedPairs:
    """Put pairs to a judge; one that reads pairs is asked in both orders.

    Args:
        judge: The judge. `Symmetrized` is looked into, so that each order is known.
        pairs: As for `Pairs.of`.
        on_progress: Called with the number of pairs that are finished since the last call.
        progress: Whether to show a bar.

    Returns:
        The answers.

    Raises:
        DataError: The pairs are not of the right form.
        JudgeError: The judge fails, or its answers are not win probabilities.
    """
    asked = Pairs.of(pairs)
    judge.stats()  # whatever was asked before is not ours
    with tqdm(total=len(asked), desc="judge", unit="pair", disable=not progress, leave=False) as bar:

        def advance(count: int) -> None:
            bar.update(count)
            if on_progress is not None:
                on_progress(count)

        if isinstance(judge, PointwiseJudge):
            first, second = _features(judge, asked, advance)
            forward = np.asarray(judge.compare(first, second), dtype=np.float64)
            scores = np.concatenate([first, second], axis=1) if first.shape[1] == 1 else None
            return JudgedPairs(asked, judge.name, forward, None, True, judge.stats(), scores)
        inner = judge.judge if isinstance(judge, Symmetrized) else judge
        forward, backward = _both_orders(inner, asked, advance)
    return JudgedPairs(asked, judge.name, forward, backward, inner is not judge, judge.stats())


def ask_groups(
    judge: Judge, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], *, progress: bool = False
) -> list[FloatArray]:
    """Compare the responses of each group with each other; a judge of pairs is asked in both orders.

    Args:
        judge: The judge.
        prompts: The prompts.
        responses: A group for each prompt; groups may differ in size.
        progress: Whether to show a bar.

    Returns:
        P(i beats j) for each group, shape (G, G), in the order of the groups.

    Raises:
        JudgeError: The judge fails.
    """
    asked = judge if isinstance(judge, PointwiseJudge | Symmetrized) else Symmetrized(judge)
    by_size: dict[int, list[int]] = {}
    for at, group in enumerate(responses):
        by_size.setdefault(len(group), []).append(at)
    answers: list[FloatArray] = [np.zeros((0, 0))] * len(prompts)
    with tqdm(total=len(answers), desc="judge", unit="group", disable=not progress, leave=False) as bar:
        for same in by_size.values():
            for start in range(0, len(same), GROUPS_PER_CALL):
                part = same[start : start + GROUPS_PER_CALL]
                matrices = asked.group_win_prob([prompts[at] for at in part], [responses[at] for at in part])
                for at, matrix in zip(part, matrices, strict=True):
                    answers[at] = matrix
                bar.update(len(part))
    return answers


def prompt_numbers(prompts: Sequence[Prompt]) -> IndexArray:
    """Number prompts, equal ones alike, from 0 in the order of their first appearance.

    Args:
        prompts: N prompts.

    Returns:
        Shape (N,).
    """
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(json.dumps(prompt), len(seen)) for prompt in prompts], dtype=np.intp)


def _features(judge: PointwiseJudge, pairs: Pairs, advance: Callable[[int], None]) -> tuple[FloatArray, FloatArray]:
    """Read each response once, however many pairs it is in; the rows of first and second."""
    number_N = prompt_numbers(pairs.prompts)
    places: dict[tuple[int, str], int] = {}
    rows: list[int] = []
    texts: list[str] = []
    sides: list[list[int]] = []
    for responses in (pairs.first, pairs.second):
        side = []
        for row, (number, text) in enumerate(zip(number_N.tolist(), responses, strict=True)):
            place = places.setdefault((number, text), len(places))
            if place == len(texts):
                rows.append(row)
                texts.append(text)
            side.append(place)
        sides.append(side)
    features: FloatArray | None = None
    done, shown = 0, 0
    for part in _chunks(len(texts), 2 * PAIRS_PER_CALL):
        prompts = [pairs.prompts[rows[at]] for at in part]
        for index, answer in judge.iter_features(prompts, [texts[at] for at in part]):
            if features is None:
                features = np.full((len(texts), answer.shape[1]), np.nan)
            features[part.start + index] = answer
            done += len(index)
            reached = done * len(pairs) // len(texts)
            advance(reached - shown)
            shown = reached
    assert features is not None  # there is at least one pair
    return features[sides[0]], features[sides[1]]


def _both_orders(judge: Judge, pairs: Pairs, advance: Callable[[int], None]) -> tuple[FloatArray, FloatArray]:
    """Ask (first, second) and (second, first); both as P(first beats second)."""
    orders_2N = np.full((2, len(pairs)), np.nan)
    for part in _chunks(len(pairs), PAIRS_PER_CALL):
        rows = slice(part.start, part.stop)
        prompts, first, second = list(pairs.prompts[rows]), list(pairs.first[rows]), list(pairs.second[rows])
        odd = 0
        for index, answer in judge.iter_pair_win_prob([*prompts, *prompts], [*first, *second], [*second, *first]):
            orders_2N[index // len(part), part.start + index % len(part)] = answer
            finished, odd = divmod(len(index) + odd, 2)
            advance(finished)
    return orders_2N[0], 1.0 - orders_2N[1]


def _chunks(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))
