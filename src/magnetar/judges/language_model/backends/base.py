"""What a judge needs of a language model: replies to questions, in any order, as they are finished."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from magnetar.errors import JudgeError
from magnetar.judges.language_model.templates import Choices
from magnetar.types import Message

__all__ = ["Asking", "Backend", "LogprobsUse", "Reply"]

TOKENS_AROUND_TURN = 16
"""What a chat template adds to a turn, at most; its role and its control tokens."""
LogprobsUse = Literal["auto", "require", "never"]
"""Whether log-probabilities are used: "auto", "require" or "never"."""


@dataclass(frozen=True)
class Asking:
    """How all questions of one call are asked.

    Attributes:
        choices: The words that the reply is to consist of.
        logprobs: "auto" (where offered), "require" or "never".
        max_new_tokens: Longest reply.
        count: Takes the name of a counter and an amount to add: calls, retries, tokens_in, tokens_out.
        enough: Set by who asks when no further question is to be begun; replies to those begun are still wanted.
    """

    choices: Choices
    logprobs: LogprobsUse
    max_new_tokens: int
    count: Callable[[str, float], None]
    enough: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Reply:
    """What a language model replied.

    Attributes:
        text: The text; empty when only probabilities were asked for.
        logprobs: Log-probability, nats, of tokens at the first place of the reply; None when there are none.
        problem: Why there is no reply that could be read, such as a content filter; empty when there is.
        tokens: Number of tokens written, where the backend says.
        truncated: Whether the reply ended for want of room, where the backend says.
    """

    text: str
    logprobs: Mapping[str, float] | None = None
    problem: str = ""
    tokens: int | None = None
    truncated: bool | None = None


class Backend(ABC):
    """A language model that can be asked.

    Attributes:
        model: Name of the model.
        calls_at_once: How many calls of `replies`, from different threads, gain by being open at the same time.
    """

    model: str
    calls_at_once: int = 1

    def leaves_free(self, device: str) -> bool:
        """Whether the model surely does not run on a device; see `Judge.leaves_free`."""
        return False

    @abstractmethod
    def replies(self, questions: Sequence[Sequence[Message]], asking: Asking) -> Iterator[tuple[int, Reply]]:
        """Ask N ≥ 1 questions.

        Args:
            questions: N lists of chat turns.
            asking: How they are asked.

        Yields:
            Index of a question and its reply; each index exactly once, in any order, unless ``asking.enough`` was set.
            What was yielded is final, also when a later question fails.

        Raises:
            JudgeError: If the model cannot be asked, or a limit is reached.
        """

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All that decides a reply: model, place, settings of the sampling; never a key."""

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, exact where the tokenizer is known."""

    def count_question(self, question: Sequence[Message]) -> int:
        """Number of tokens of a whole question, at least what the model will read."""
        return sum(self.count_tokens(turn["content"]) + TOKENS_AROUND_TURN for turn in question)

    def longest_input(self) -> int | None:
        """Largest number of tokens that the model reads; None where that is not known."""
        return None

    def control_tokens(self) -> tuple[str, ...]:
        """Tokens of the model's own that a text must not contain; those of usual chat templates are known anyway."""
        return ()


def check_logprobs_use(value: object) -> None:
    """Raise a `JudgeError` unless the value is one of the three uses."""
    if value not in ("auto", "require", "never"):
        raise JudgeError(f"logprobs = {value!r}, expected 'auto', 'require' or 'never'")
