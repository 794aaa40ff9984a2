"""Prompts as judges read them: chat turns, plain text, or the last question alone."""

from magnetar.types import Message, Prompt

__all__ = ["as_messages", "last_question", "prompt_text"]


def as_messages(prompt: Prompt) -> list[Message]:
    """Chat turns of a prompt; text becomes one turn of the user."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def prompt_text(prompt: Prompt) -> str:
    """Plain text of a prompt: text as it is, one turn as its content, several turns as "role: content" lines."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def last_question(prompt: Prompt) -> str:
    """What the user said last; the whole text where the prompt has no turns of a user."""
    if isinstance(prompt, str):
        return prompt
    asked = [turn["content"] for turn in prompt if turn["role"] == "user"]
    return asked[-1] if asked else prompt_text(prompt)
