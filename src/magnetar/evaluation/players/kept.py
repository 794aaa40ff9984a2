"""Answers of any player, kept on disk as they come, so that an evaluation that was stopped goes on where it was."""

from collections.abc import Sequence
from pathlib import Path

from magnetar.data.splits import prompt_key
from magnetar.evaluation.players.base import Answer, GenerationRequest, StreamingPlayer
from magnetar.evaluation.players.sheets import AnswerSheet, answer_seed
from magnetar.types import Prompt

__all__ = ["kept_answers"]


def kept_answers(
    player: StreamingPlayer,
    name: str,
    prompts: Sequence[Prompt],
    request: GenerationRequest,
    path: Path,
) -> list[Answer | None]:
    """Let a player answer what it has not answered yet, and read back all of it.

    Answers are found by prompt and by what decides them (weights, template, sampling), so that further prompts cost
    only what is new, and a player that changed answers again. A response depends on the seed, the player's name, the
    prompt and its place among the responses, never on the batch or on other prompts.

    Args:
        player: Who answers; one without an identity, such as a file, is asked each time.
        name: What decides the seeds, with ``request.seed`` and the prompt.
        prompts: B different prompts.
        request: How to sample.
        path: The player's file.

    Returns:
        An answer for each prompt; None where the player has none.
    """
    seeds = [answer_seed(request.seed, name, prompt) for prompt in prompts]
    identity = player.identity()
    if identity is None:
        found = dict(player.answers(prompts, seeds, request))
        return [found.get(row) for row in range(len(prompts))]
    path.parent.mkdir(parents=True, exist_ok=True)
    sampled = {"sampling": vars(request.sampling), "responses": request.responses_per_prompt, "seed": request.seed}
    sheet = AnswerSheet(path, {**identity, "name": name, **sampled})
    keys = [prompt_key(prompt) for prompt in prompts]
    missing = [row for row, key in enumerate(keys) if key not in sheet.lines]
    if missing:
        asked = [prompts[row] for row in missing], [seeds[row] for row in missing]
        for place, answer in player.answers(*asked, request):
            sheet.add(
                keys[missing[place]],
                {"texts": list(answer.texts), "tokens": answer.tokens, "truncated": answer.truncated},
            )
    return [Answer(**sheet.lines[key]) if key in sheet.lines else None for key in keys]
