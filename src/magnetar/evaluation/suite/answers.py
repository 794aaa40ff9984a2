"""What everybody answered: gathered once, kept on disk, and the prompts that all have an answer to."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from magnetar.errors import DataError
from magnetar.evaluation.matchup import Responses
from magnetar.evaluation.players import Answer, GenerationRequest, StreamingPlayer, as_responses, kept_answers
from magnetar.types import Prompt

__all__ = ["AnsweredPrompts", "answer_prompts", "refuse_uncovered"]


@dataclass(frozen=True)
class AnsweredPrompts:
    """Prompts that every player answered.

    Attributes:
        rows: Their places among all prompts.
        responses: Player → responses, in the order of ``rows``.
        skipped: Player → number of prompts that it had no answer to.
    """

    rows: Sequence[int]
    responses: Mapping[str, Responses]
    skipped: Mapping[str, int]


def refuse_uncovered(
    players: Mapping[str, StreamingPlayer], prompts: Sequence[Prompt], responses: int, missing: str
) -> list[int]:
    """Refuse files of responses that do not cover the prompts, before anything is generated.

    Args:
        players: By name.
        prompts: What is to be answered.
        responses: Responses to each prompt.
        missing: "error", or "skip" for leaving such prompts out; at least one prompt must be left then.

    Returns:
        Rows of the prompts that all files answer.

    Raises:
        DataError: Prompts without an answer, or none that all files answer.
    """
    left = set(range(len(prompts)))
    for player in players.values():
        uncovered = player.unanswered(prompts, responses)
        if uncovered and missing == "error":
            raise DataError(player.missing_words(prompts, uncovered, responses))
        left -= set(uncovered)
    if not left:
        raise DataError(
            f"none of the {len(prompts)} prompts is answered {responses} times by all files of responses; prompts must "
            "equal the dataset's exactly"
        )
    return sorted(left)


def answer_prompts(
    players: Mapping[str, StreamingPlayer],
    prompts: Sequence[Prompt],
    request: GenerationRequest,
    folder: Path,
    missing: str,
    tell: Callable[[str], None],
) -> AnsweredPrompts:
    """Let everybody answer, one after another; what was answered before is read back.

    Args:
        players: By name.
        prompts: Different prompts.
        request: How all are sampled.
        folder: Where answers are kept, a file for each player.
        missing: "error" or "skip"; see `refuse_uncovered`.
        tell: Takes a line about prompts that are left out.

    Returns:
        The answers to the prompts that all have one to.

    Raises:
        DataError: Prompts without an answer where that is an error, or none that all answered.
        ModelError: A model that cannot be loaded, or an endpoint that cannot be asked.
    """
    found: dict[str, list[Answer | None]] = {}
    skipped: dict[str, int] = {}
    for name, player in players.items():
        found[name] = kept_answers(player, name, prompts, request, folder / f"{file_name(name)}.jsonl")
        without = [row for row, answer in enumerate(found[name]) if answer is None]
        if without and missing == "error":
            raise DataError(player.missing_words(prompts, without, request.responses_per_prompt))
        if without:
            skipped[name] = len(without)
            tell(f"{name} has no answer to {len(without)} of {len(prompts)} prompts, which are left out for everybody")
    rows = [row for row in range(len(prompts)) if all(answers[row] is not None for answers in found.values())]
    if not rows:
        raise DataError(f"none of the {len(prompts)} prompts is answered by everybody")
    responses = {
        name: as_responses([answer for row in rows if (answer := answers[row]) is not None])
        for name, answers in found.items()
    }
    return AnsweredPrompts(rows, responses, skipped)


def file_name(name: str) -> str:
    """A name as a file's: other characters than letters, digits, dot and hyphen are replaced, and a digest added."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")
    return plain if plain == name else f"{plain}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
