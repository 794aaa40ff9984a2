"""Prompts as judges read them: as chat turns, or the last question alone."""

from magnetar.data.prompts import prompt_text
from magnetar.types import Message, Prompt

__all__ = ["as_messages", "last_question"]


def as_messages(prompt: Prompt) -> list[Message]:
    """Chat turns of a prompt; text becomes one turn of the user."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def last_question(prompt: Prompt) -> str:
    """What the user said last; the whole text where the prompt has no turns of a user."""
    if isinstance(prompt, str):
        return prompt
    asked = [turn["content"] for turn in prompt if turn["role"] == "user"]
    return asked[-1] if asked else prompt_text(prompt)
