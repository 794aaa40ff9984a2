"""How often a judge ranks three responses to one prompt in a circle."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.judging.pairs import Pairs, ask_groups, prompt_numbers
from magnetar.evaluation.judging.resampling import Resampling, estimate_all
from magnetar.evaluation.judging.statistics import count_cycles, ratio
from magnetar.judges import Judge
from magnetar.types import Prompt

__all__ = ["CycleShare", "ResponseGroup", "measure_cycles", "response_groups"]


@dataclass(frozen=True)
class ResponseGroup:
    """The distinct responses to one prompt.

    Attributes:
        prompt: The prompt.
        responses: At least three different texts.
    """

    prompt: Prompt
    responses: list[str]


@dataclass(frozen=True)
class CycleShare:
    """Cyclic triples of a judge.

    Attributes:
        share: Share of the fully answered triples that are cyclic, with its interval over prompts.
        prompts: Prompts with at least three distinct responses that were asked about.
        triples: Triples with all three answers.
    """

    share: Estimate
    prompts: int
    triples: int


def response_groups(pairs: Pairs, *, max_responses: int, seed: int) -> list[ResponseGroup]:
    """Collect the responses that the pairs hold to each prompt, where there are three or more different ones.

    Args:
        pairs: The pairs.
        max_responses: At most so many of each prompt, drawn at random, at least 3: the number of comparisons grows
            with its square.
        seed: Seed of the draw.

    Returns:
        The groups, in the order of the prompts; empty where no prompt has three responses.
    """
    texts: dict[int, dict[str, None]] = {}
    row_of: dict[int, int] = {}
    for row, number in enumerate(prompt_numbers(pairs.prompts).tolist()):
        row_of.setdefault(number, row)
        texts.setdefault(number, {}).update({pairs.first[row]: None, pairs.second[row]: None})
    rng = np.random.default_rng(seed)
    groups = []
    for number, found in texts.items():
        if len(found) < 3:
            continue
        responses = list(found)
        if len(responses) > max_responses:
            responses = [responses[at] for at in np.sort(rng.permutation(len(responses))[:max_responses])]
        groups.append(ResponseGroup(pairs.prompts[row_of[number]], responses))
    return groups


def measure_cycles(
    judge: Judge, groups: Sequence[ResponseGroup], resampling: Resampling, *, progress: bool = False
) -> CycleShare:
    """Ask a judge about whole groups and count its cyclic triples; a judge of pairs is asked in both orders.

    Args:
        judge: The judge.
        groups: At least one group, as `response_groups` gives them.
        resampling: How the interval is made.
        progress: Whether to show a bar.

    Returns:
        The share with its interval.
    """
    answers = ask_groups(judge, [one.prompt for one in groups], [one.responses for one in groups], progress=progress)
    counts = [count_cycles(win_prob) for win_prob in answers]
    cyclic, triples = np.array(counts, dtype=np.float64).T
    statistic = ratio(cyclic, triples, share=True)
    share = estimate_all({"share": statistic}, np.arange(len(counts)), resampling)["share"]
    return CycleShare(share, len(counts), int(triples.sum()))
