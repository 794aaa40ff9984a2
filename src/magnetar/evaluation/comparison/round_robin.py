"""Every two contestants compared by one judge on the same prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from magnetar.evaluation.asking import GroupAsker
from magnetar.evaluation.comparison.contestants import Answers
from magnetar.judges import Judge
from magnetar.judges.pointwise import PointwiseJudge
from magnetar.types import Prompt

__all__ = ["Pairs", "WinRates", "judge_pairs", "mean_of_answered", "needed_comparisons"]

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class WinRates:
    """Who beats whom on each prompt.

    Attributes:
        names: Contestants.
        win_prob_PPB: Mean P(a response of the first beats one of the second) over both sides' responses to a prompt, in
            [0, 1]; NaN where the pair was not asked for, or the judge answered none of a prompt's comparisons.
    """

    names: tuple[str, ...]
    win_prob_PPB: NDArray[np.float64]

    def between(self, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float64]:
        """Win rates of some contestants against others: shape (first, second, B)."""
        rows = [self.names.index(name) for name in first]
        columns = [self.names.index(name) for name in second]
        return self.win_prob_PPB[np.ix_(rows, columns)]


def needed_comparisons(judge: Judge, pairs: int, prompts: int, responses: int, contestants: int) -> tuple[int, str]:
    """What a judge will be asked: readings for one that reads each response once, comparisons for any other.

    Args:
        judge: Who compares.
        pairs: Pairs of contestants.
        prompts: B.
        responses: G of each contestant to each prompt.
        contestants: How many there are.

    Returns:
        Number and unit.
    """
    if isinstance(judge, PointwiseJudge):
        return contestants * prompts * responses, "responses to read"
    return pairs * prompts * responses * responses, "pairs to compare"


def judge_pairs(
    answers: Mapping[str, Answers],
    prompts: Sequence[Prompt],
    judge: Judge,
    pairs: Pairs,
    *,
    progress: bool = False,
) -> WinRates:
    """Ask a judge about pairs of contestants, each pair in one direction.

    A judge that reads each response by itself reads each one once, whatever the number of pairs. A judge with a
    preference for the first answer needs to be wrapped in ``Symmetrized``.

    Args:
        answers: Name → what the contestant answered, to the same prompts.
        prompts: B prompts.
        judge: Who compares; wrapped in ``Cached`` it is asked nothing twice.
        pairs: Which two to compare.
        progress: Show a bar on standard error.

    Returns:
        Win rates of all pairs asked for, in both directions.

    Raises:
        JudgeError: If the judge's answers are not win probabilities.
    """
    names = tuple(answers)
    place = {name: at for at, name in enumerate(names)}
    table = np.full((len(names), len(names), len(prompts)), np.nan)
    asker = GroupAsker(judge, prompts)
    texts = {name: one.responses.texts for name, one in answers.items()}
    asker.read(texts, progress="judge reads" if progress else None)
    for first, second in tqdm(pairs, desc="judge compares", unit="pair", disable=not progress, leave=False):
        judged = asker.compare(first, texts[first], second, texts[second], both_orders=False)
        rate_B = mean_of_answered(judged.win_prob_BGH)
        table[place[first], place[second]] = rate_B
        table[place[second], place[first]] = 1.0 - rate_B
    return WinRates(names, table)


def mean_of_answered(win_prob_BGH: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the answered comparisons of each prompt; NaN for a prompt without any."""
    answered = ~np.isnan(win_prob_BGH)
    count_B = answered.sum((1, 2))
    total_B = np.where(answered, win_prob_BGH, 0.0).sum((1, 2))
    return np.where(count_B > 0, total_B / np.maximum(count_B, 1), np.nan)
