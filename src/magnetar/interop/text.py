"""Prompts and completions as TRL's trainers hand them to reward functions, and as judges read them."""

from collections.abc import Mapping
from typing import Any

from magnetar.errors import DataError
from magnetar.types import Message, Prompt

__all__ = ["completion_for_trl", "completion_text", "prompt_of_trl"]


def prompt_of_trl(prompt: Any) -> Prompt:
    """A prompt for a judge: text as it is, chat turns with role and text alone.

    Args:
        prompt: Text, or chat turns; the content of a turn may be a list of blocks, of which the text is kept.

    Returns:
        The prompt.

    Raises:
        DataError: It is neither.
    """
    if isinstance(prompt, str):
        return prompt
    return [{"role": str(turn.get("role", "")), "content": _content(turn)} for turn in _turns(prompt, "prompt")]


def completion_text(completion: Any) -> str:
    """The response in a completion: the text, or what the assistant says in its last turn.

    Args:
        completion: Text, or turns of the assistant, perhaps with turns of tools between them.

    Returns:
        The text; empty when the assistant says nothing.

    Raises:
        DataError: It is neither.
    """
    if isinstance(completion, str):
        return completion
    said = [turn for turn in _turns(completion, "completion") if turn.get("role", "assistant") == "assistant"]
    return _content(said[-1]) if said else ""


def completion_for_trl(prompt: Prompt, response: str) -> str | list[Message]:
    """A response in the form that belongs to its prompt: text to text, a turn of the assistant to chat turns."""
    return response if isinstance(prompt, str) else [{"role": "assistant", "content": response}]


def _turns(value: Any, what: str) -> list[Mapping[str, Any]]:
    if isinstance(value, list) and all(isinstance(turn, Mapping) for turn in value):
        return value
    raise DataError(f"a {what} is {str(value)[:80]!r} ({type(value).__name__}), expected text or a list of chat turns")


def _content(turn: Mapping[str, Any]) -> str:
    content = turn.get("content")
    if content is None:  # a turn that only calls tools
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(block, Mapping) for block in content):
        return "".join(str(block.get("text", "")) for block in content if block.get("type", "text") == "text")
    raise DataError(f"the content of a turn is a {type(content).__name__}, expected text or a list of blocks")
