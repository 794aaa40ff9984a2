"""What a player is: anything that answers prompts, at once or one prompt after another."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from magnetar.errors import DataError
from magnetar.evaluation.matchup import Responses
from magnetar.rollout import SamplingParams
from magnetar.types import Prompt

__all__ = ["Answer", "GenerationRequest", "Player", "StreamingPlayer", "as_responses"]


@dataclass(frozen=True)
class GenerationRequest:
    """How responses are to be sampled.

    Attributes:
        sampling: Temperature, nucleus and length limits.
        responses_per_prompt: Responses per prompt, at least 1.
        seed: Seed of this player's sampling; two players need different ones (see `play`).
        first_row: Place of the first prompt in the whole dataset, when this process plays only a share of it: prompt i
            is sampled as row ``first_row + i · row_step``, so that answers do not depend on the number of processes.
        row_step: See ``first_row``.
        batch_size: Prompts per forward batch; changes speed and memory only, each prompt has a seed of its own.
        progress: Show a progress bar on standard error.
    """

    sampling: SamplingParams
    responses_per_prompt: int = 1
    seed: int = 0
    first_row: int = 0
    row_step: int = 1
    batch_size: int = 16
    progress: bool = False

    def seeds(self, prompts: int) -> list[int]:
        """Seeds of the sampling of so many prompts, by their rows in the dataset."""
        end = self.first_row + prompts * self.row_step
        return np.random.SeedSequence(self.seed).generate_state(end)[self.first_row :: self.row_step].tolist()


@dataclass(frozen=True)
class Answer:
    """A player's responses to one prompt.

    Attributes:
        texts: At least one.
        tokens: Length of each in the player's own tokens; None when unknown.
        truncated: True where a response ended for want of room; None when unknown.
    """

    texts: Sequence[str]
    tokens: Sequence[int] | None = None
    truncated: Sequence[bool] | None = None


class Player(Protocol):
    """Anything that answers prompts."""

    @property
    def name(self) -> str:
        """What tables call the player."""
        ...

    def respond(self, prompts: Sequence[Prompt], request: GenerationRequest) -> Responses:
        """Answer each prompt ``request.responses_per_prompt`` times."""
        ...


class StreamingPlayer(ABC):
    """A player whose answers come one prompt after another, so that each can be kept as soon as it is there."""

    @abstractmethod
    def answers(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], request: GenerationRequest
    ) -> Iterator[tuple[int, Answer]]:
        """Answer prompts.

        Args:
            prompts: B prompts.
            seeds: One for the sampling of each; who cannot be seeded leaves them alone.
            request: How to sample; its own seed is not used.

        Yields:
            Index of a prompt and its answer, in any order; a prompt that the player has no answer to does not come.
        """

    def identity(self) -> Mapping[str, Any] | None:
        """What decides the answers besides the request, as plain values; None where answers need not be kept."""
        return None

    def unanswered(self, prompts: Sequence[Prompt], count: int) -> list[int]:
        """Indices of prompts of which it is known beforehand that ``count`` answers cannot be had."""
        return []

    def missing_words(self, prompts: Sequence[Prompt], missing: Sequence[int], count: int) -> str:
        """One sentence about prompts without answers."""
        return f"{len(missing)} of {len(prompts)} prompts got no answer"

    def respond(self, prompts: Sequence[Prompt], request: GenerationRequest) -> Responses:
        """Answer each prompt ``request.responses_per_prompt`` times.

        Raises:
            DataError: Prompts without an answer.
        """
        found: dict[int, Answer] = dict(self.answers(prompts, request.seeds(len(prompts)), request))
        missing = [row for row in range(len(prompts)) if row not in found]
        if missing:
            raise DataError(self.missing_words(prompts, missing, request.responses_per_prompt))
        return as_responses([found[row] for row in range(len(prompts))])


def as_responses(answers: Sequence[Answer]) -> Responses:
    """Answers to B prompts as arrays; lengths and truncation where they are known of all.

    Args:
        answers: One for each prompt, with equally many responses.

    Returns:
        The responses.
    """
    tokens = [answer.tokens for answer in answers]
    truncated = [answer.truncated for answer in answers]
    return Responses(
        [list(answer.texts) for answer in answers],
        None if any(one is None for one in tokens) else np.array(tokens, dtype=np.int64),
        None if any(one is None for one in truncated) else np.array(truncated, dtype=np.bool_),
    )
