"""Prompts as judges read them: as chat turns, or the last question alone."""

from typing import TYPE_CHECKING

from magnetar.data.prompts import prompt_text
from magnetar.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["as_messages", "last_question", "response_text"]


def as_messages(prompt: Prompt) -> list[Message]:
    """Chat turns of a prompt; text becomes one turn of the user."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def last_question(prompt: Prompt) -> str:
    """What the user said last; the whole text where the prompt has no turns of a user."""
    if isinstance(prompt, str):
        return prompt
    asked = [turn["content"] for turn in prompt if turn["role"] == "user"]
    return asked[-1] if asked else prompt_text(prompt)


def response_text(tokenizer: "PreTrainedTokenizerBase", prompt: Prompt, response: str) -> str:
    """The text that a model of single responses reads.

    Args:
        tokenizer: The model's. With a chat template, prompt and response go through it as chat turns, and the special
            tokens are in the text; without, the response follows the prompt, behind an empty line if that is of chat
            turns.
        prompt: Text or chat turns.
        response: What is judged.

    Returns:
        The text.
    """
    if tokenizer.chat_template:
        turns = [*as_messages(prompt), {"role": "assistant", "content": response}]
        return str(tokenizer.apply_chat_template(turns, tokenize=False))
    return prompt_text(prompt) + ("" if isinstance(prompt, str) else "\n\n") + response
