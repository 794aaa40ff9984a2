"""A match-up: what two players answered to the same prompts, and how a judge compared the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import DataError, JudgeError
from magnetar.evaluation.asking import JudgedGroups
from magnetar.types import Prompt

__all__ = ["Matchup", "Responses", "answered_comparisons", "drawn_rows", "sample_records"]


@dataclass(frozen=True)
class Responses:
    """What one player answered.

    Attributes:
        texts: For each prompt its responses, equally many for each prompt and at least one.
        tokens_BG: Length of each response in the player's own tokens; None when unknown (responses from a file).
        truncated_BG: True where a response ended for want of room; None when unknown.
    """

    texts: list[list[str]]
    tokens_BG: NDArray[np.int64] | None = None
    truncated_BG: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check that all groups have one size and the arrays fit it."""
        if not self.texts:
            raise DataError("no prompts were answered, expected at least one; is the dataset empty?")
        sizes = {len(group) for group in self.texts}
        if len(sizes) != 1 or 0 in sizes:
            raise DataError(f"groups of {sorted(sizes)} responses, expected equally many (at least 1) for each prompt")
        for name in ("tokens_BG", "truncated_BG"):
            value = getattr(self, name)
            if value is not None and value.shape != self.shape:
                raise ValueError(f"{name} has shape {value.shape}, expected {self.shape}")

    @property
    def shape(self) -> tuple[int, int]:
        """Number of prompts, responses per prompt."""
        return len(self.texts), len(self.texts[0])

    def select(self, rows: Sequence[int]) -> "Responses":
        """The responses to some of the prompts, in the given order."""
        index = np.asarray(rows, dtype=np.int64)
        return Responses(
            [self.texts[row] for row in rows],
            None if self.tokens_BG is None else self.tokens_BG[index],
            None if self.truncated_BG is None else self.truncated_BG[index],
        )


@dataclass(frozen=True)
class Matchup:
    """Two players' responses to the same prompts and the judge's comparison of each with each.

    Attributes:
        prompts: B prompts, standard or conversational.
        categories: One label per prompt; None when the dataset has no categories.
        policy: The evaluated player's responses, G per prompt.
        opponent: The other player's responses, H per prompt.
        win_prob_BGH: P(policy's response g beats opponent's response h), in [0, 1]; NaN where the judge left a pair
            unanswered.
        judge: Specification of the judge that was asked.
        policy_name: What the policy is called in tables.
        opponent_name: What the opponent is called in tables.
        judged: The answers in each order, of which ``win_prob_BGH`` is the mean; None where both were not asked for by
            themselves.
    """

    prompts: list[Prompt]
    categories: list[str] | None
    policy: Responses
    opponent: Responses
    win_prob_BGH: NDArray[np.float64]
    judge: str
    policy_name: str
    opponent_name: str
    judged: JudgedGroups | None = None

    def __post_init__(self) -> None:
        """Check that everything speaks of the same prompts and that the judge gave probabilities."""
        b = len(self.prompts)
        if self.categories is not None and len(self.categories) != b:
            raise DataError(f"{len(self.categories)} categories for {b} prompts, expected one for each")
        for name, responses in ((self.policy_name, self.policy), (self.opponent_name, self.opponent)):
            if responses.shape[0] != b:
                raise DataError(f"{name} answered {responses.shape[0]} prompts, expected {b}")
        expected = (b, self.policy.shape[1], self.opponent.shape[1])
        if self.win_prob_BGH.shape != expected:
            raise JudgeError(
                f"judge {self.judge!r} gave win probabilities of shape {self.win_prob_BGH.shape}, expected {expected}: "
                "prompts, policy's responses, opponent's responses"
            )
        inside = ((self.win_prob_BGH >= 0.0) & (self.win_prob_BGH <= 1.0)) | np.isnan(self.win_prob_BGH)
        if not inside.all():
            wrong = self.win_prob_BGH[~inside]
            raise JudgeError(
                f"judge {self.judge!r} gave {wrong.size} answers outside [0, 1], the first {wrong[0]}; a judge must "
                "return P(first beats second)"
            )

    @property
    def win_prob_B(self) -> NDArray[np.float64]:
        """Mean win probability of each prompt over its answered pairs; NaN for a prompt without any."""
        answered = ~np.isnan(self.win_prob_BGH)
        total = np.where(answered, self.win_prob_BGH, 0.0).sum(axis=(1, 2))
        count = answered.sum(axis=(1, 2))
        return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)

    def select(self, rows: Sequence[int]) -> "Matchup":
        """The match-up on some of the prompts, in the given order."""
        return Matchup(
            prompts=[self.prompts[row] for row in rows],
            categories=None if self.categories is None else [self.categories[row] for row in rows],
            policy=self.policy.select(rows),
            opponent=self.opponent.select(rows),
            win_prob_BGH=self.win_prob_BGH[np.asarray(rows, dtype=np.int64)],
            judge=self.judge,
            policy_name=self.policy_name,
            opponent_name=self.opponent_name,
            judged=None if self.judged is None else self.judged.select(rows),
        )

    def by_category(self) -> dict[str, "Matchup"]:
        """The match-up split by category, in alphabetical order; empty without categories."""
        if self.categories is None:
            return {}
        labels = self.categories
        return {
            name: self.select([row for row, label in enumerate(labels) if label == name])
            for name in sorted(set(labels))
        }


def answered_comparisons(
    policy: Responses, opponent: Responses, win_prob_BGH: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """What a judge answered, one comparison at a time.

    Args:
        policy: Responses of the policy to B prompts.
        opponent: Those of the opponent.
        win_prob_BGH: P(the policy's response wins); NaN where the judge abstained.

    Returns:
        Of the N answered comparisons: win probability; length of the policy's response less that of the opponent's, in
        characters; number of the prompt among those with an answer.
    """
    lengths = [
        np.array([[len(text) for text in group] for group in side.texts], dtype=np.float64)
        for side in (policy, opponent)
    ]
    difference_BGH = lengths[0][:, :, None] - lengths[1][:, None, :]
    answered = ~np.isnan(win_prob_BGH)
    numbers = np.unique(np.nonzero(answered)[0], return_inverse=True)[1]
    return win_prob_BGH[answered], difference_BGH[answered], numbers


def drawn_rows(prompts: int, categories: Sequence[str] | None, count: int, seed: int) -> list[int]:
    """Draw prompts at random, categories in turn: no picking of good ones.

    Args:
        prompts: How many there are.
        categories: One label for each; None without.
        count: How many to draw; all, in random order, if there are fewer.
        seed: Of the draw.

    Returns:
        Rows.
    """
    order: list[int] = np.random.default_rng(seed).permutation(prompts).tolist()
    taken: dict[str, int] = {}
    turns: list[tuple[int, int]] = []
    for row in order:
        label = "" if categories is None else categories[row]
        turns.append((taken.get(label, 0), row))
        taken[label] = taken.get(label, 0) + 1
    turns.sort(key=lambda turn: turn[0])
    return [row for _, row in turns[: max(count, 0)]]


def sample_records(matchup: Matchup, count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Draw prompts at random, categories in turn, with the first response of both players: no picking of good ones.

    Args:
        matchup: The match-up.
        count: How many to draw; all, in random order, if there are fewer.
        seed: Seed of the draw.

    Returns:
        Objects with ``prompt``, ``category`` (may be None), ``policy``, ``opponent`` and ``win_prob``, the probability
        that the shown response of the policy beats the shown one of the opponent (None where the judge gave no answer).
    """
    rows = drawn_rows(len(matchup.prompts), matchup.categories, count, seed)
    return [
        {
            "prompt": matchup.prompts[row],
            "category": matchup.categories[row] if matchup.categories else None,
            "policy": matchup.policy.texts[row][0],
            "opponent": matchup.opponent.texts[row][0],
            "win_prob": None if np.isnan(value := matchup.win_prob_BGH[row, 0, 0]) else float(value),
        }
        for row in rows
    ]
