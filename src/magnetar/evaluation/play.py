"""Let two players answer the same prompts and have a judge compare them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from magnetar.errors import DataError
from magnetar.evaluation.asking import GroupAsker
from magnetar.evaluation.matchup import Matchup, Responses
from magnetar.evaluation.players import GenerationRequest, Player, StreamingPlayer, as_responses
from magnetar.judges import Judge
from magnetar.types import Prompt

__all__ = ["play"]


def play(
    policy: Player,
    opponent: Player,
    prompts: Sequence[Prompt],
    categories: Sequence[str] | None,
    judge: Judge,
    *,
    request: GenerationRequest,
    opponent_responses_per_prompt: int | None = None,
    both_orders: bool = False,
    missing: str = "error",
) -> Matchup:
    """Sample both players and ask the judge to compare every response with every one of the other side.

    The players are sampled with different seeds, both derived from ``request.seed``. With the same seed two equal
    models would give word for word equal answers, each a tie, and two similar models nearly so: the comparison would
    no longer be one of independent samples.

    The judge is asked as it is, the policy's response first. A judge with a preference for the first answer needs to be
    wrapped in ``Symmetrized``, or asked with ``both_orders``, which also tells how large that preference is.

    Args:
        policy: The player whose win rate is wanted.
        opponent: The player to beat.
        prompts: At least one prompt.
        categories: One label per prompt, or None.
        judge: Who compares.
        request: How both players are sampled.
        opponent_responses_per_prompt: If the opponent is to answer more or less often than the policy.
        both_orders: Whether a judge that sees an order is asked in both, each kept by itself.
        missing: "error", or "skip" to leave out prompts that a player has no answer to.

    Returns:
        The match-up.

    Raises:
        DataError: If there are no prompts, or a player has no answer to one and that is an error, or to any.
        JudgeError: If the judge's answers are not win probabilities.
    """
    if not prompts:
        raise DataError("no prompts to evaluate on, expected at least one; is the dataset's split empty?")
    policy_seed, opponent_seed = np.random.SeedSequence(request.seed).generate_state(2).tolist()
    requests = (
        replace(request, seed=policy_seed),
        replace(
            request,
            seed=opponent_seed,
            responses_per_prompt=opponent_responses_per_prompt or request.responses_per_prompt,
        ),
    )
    if missing == "skip":
        rows, policy_answers, opponent_answers = _common(policy, opponent, prompts, *requests)
        prompts = [prompts[row] for row in rows]
        categories = None if categories is None else [categories[row] for row in rows]
    else:
        policy_answers = policy.respond(prompts, requests[0])
        opponent_answers = opponent.respond(prompts, requests[1])
    judged = None
    if both_orders:
        judged = GroupAsker(judge, prompts).compare(
            policy.name, policy_answers.texts, f"{opponent.name} (opponent)", opponent_answers.texts
        )
        win_prob = judged.win_prob_BGH
    else:
        win_prob = _judged(judge, prompts, policy_answers, opponent_answers, request)
    return Matchup(
        prompts=list(prompts),
        categories=None if categories is None else list(categories),
        policy=policy_answers,
        opponent=opponent_answers,
        win_prob_BGH=win_prob,
        judge=judge.name,
        policy_name=policy.name,
        opponent_name=opponent.name,
        judged=judged,
    )


def _common(
    policy: Player,
    opponent: Player,
    prompts: Sequence[Prompt],
    policy_request: GenerationRequest,
    opponent_request: GenerationRequest,
) -> tuple[list[int], Responses, Responses]:
    """Rows of the prompts that both answered, and their answers."""
    found = []
    for player, request in ((policy, policy_request), (opponent, opponent_request)):
        if not isinstance(player, StreamingPlayer):
            raise DataError(f"{player.name} answers all prompts or none; leave out missing='skip'")
        found.append(dict(player.answers(prompts, request.seeds(len(prompts)), request)))
    rows = [row for row in range(len(prompts)) if row in found[0] and row in found[1]]
    if not rows:
        raise DataError(f"none of the {len(prompts)} prompts is answered by both {policy.name} and {opponent.name}")
    one, other = (as_responses([answers[row] for row in rows]) for answers in found)
    return rows, one, other


def _judged(
    judge: Judge, prompts: Sequence[Prompt], policy: Responses, opponent: Responses, request: GenerationRequest
) -> NDArray[np.float64]:
    """Ask the judge about some prompts at a time, so that progress shows and memory stays bounded."""
    parts = []
    bar = tqdm(total=len(prompts), desc="judge compares", unit="prompt", disable=not request.progress, leave=False)
    with bar:
        for start in range(0, len(prompts), request.batch_size):
            rows = slice(start, start + request.batch_size)
            chunk = list(prompts[rows])
            parts.append(judge.cross_win_prob(chunk, policy.texts[rows], opponent.texts[rows]))
            bar.update(len(chunk))
    return np.concatenate(parts)
