"""A prompt taken apart at its last request, so that an attack changes the request and keeps what came before."""

from dataclasses import dataclass, replace

from magnetar.data.prompts import split_dialogue_text
from magnetar.errors import DataError
from magnetar.types import Message, Prompt

__all__ = ["Attacked", "Conversation", "take_apart"]


@dataclass(frozen=True)
class Attacked:
    """A prompt as an attacker puts it.

    Attributes:
        prompt: What the policy is given.
        begun: The beginning of the policy's answer that the prompt puts into its mouth; "" for none. A whole answer is
            this and what the policy adds.
        asked: The prompt without that beginning.
    """

    prompt: Prompt
    begun: str
    asked: Prompt


@dataclass(frozen=True)
class Conversation:
    """What attacks change: the last request, the turns before it, and how the answer begins.

    Attributes:
        turns: Chat turns before the request; None for a text prompt.
        request: What the user asks last.
        begun: Words put into the assistant's mouth.
        before: For a text prompt, the text before the request: earlier turns, where it is a dialogue written as text.
        after: For a text prompt, the text behind it: the mark of the assistant's turn.
    """

    turns: tuple[Message, ...] | None
    request: str
    begun: str = ""
    before: str = ""
    after: str = ""

    def ask(self, request: str) -> "Conversation":
        """The same conversation with another request at its end."""
        return replace(self, request=request)

    def put_together(self) -> Attacked:
        """The prompt that this makes."""
        if self.turns is None:
            text = f"{self.before}{self.request}{self.after}"
            return Attacked(f"{text}{_begun_text(self)}", self.begun, text)
        turns = [*(dict(turn) for turn in self.turns), {"role": "user", "content": self.request}]
        begun = [{"role": "assistant", "content": self.begun}] if self.begun else []
        return Attacked([*turns, *begun], self.begun, turns)


def take_apart(prompt: Prompt) -> Conversation:
    """Find the request in a prompt.

    Args:
        prompt: Text, or chat turns of which the last is the user's. In a dialogue written as text ("Human: …
            Assistant:") the request is the last turn of the user.

    Returns:
        The conversation; putting it together gives the prompt back.

    Raises:
        DataError: There is no request: it is empty, or the last turn is not the user's.
    """
    if isinstance(prompt, str):
        before, request, after = split_dialogue_text(prompt)
        found = Conversation(None, request, before=before, after=after)
    else:
        last = prompt[-1] if prompt else {"role": "nobody", "content": ""}
        if last["role"] != "user":
            raise DataError(
                f"the prompt ends with the turn of {last['role']!r}, expected 'user': an attack changes what the user "
                "asks last"
            )
        found = Conversation(tuple(dict(turn) for turn in prompt[:-1]), last["content"])
    if not found.request.strip():
        raise DataError(f"the request of {str(prompt)[:80]!r} is empty, expected a text to attack with; remove the row")
    return found


def _begun_text(conversation: Conversation) -> str:
    """How a text prompt ends with the beginning of its answer: on a line of its own, or behind the assistant's mark."""
    if not conversation.begun:
        return ""
    return f" {conversation.begun}" if conversation.after else f"\n\n{conversation.begun}"
