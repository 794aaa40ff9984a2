"""Short digests of questions, by which answers are found again."""

import json
from hashlib import blake2b

from magnetar.judges.wrappers.relay import Questions
from magnetar.types import Prompt

__all__ = ["KEY_BYTES", "canonical_prompt", "question_keys"]

KEY_BYTES = 16
"""Length of a key; among 2⁴⁰ answers two would share one with a chance of 2⁻⁴⁹."""


def question_keys(identity: str, questions: Questions) -> list[bytes]:
    """Digests of questions to one judge.

    Args:
        identity: What tells judges apart.
        questions: N questions.

    Returns:
        N keys of `KEY_BYTES` bytes; equal keys mean equal questions to equal judges.
    """
    # Each part is preceded by its length, so that no two questions run together; the number of texts comes first.
    start = blake2b(digest_size=KEY_BYTES)
    start.update(_measured(identity) + bytes([len(questions.texts)]))
    by_object: dict[int, blake2b] = {}
    by_text: dict[str, blake2b] = {}
    keys = []
    # Prompts come back with each response to them, mostly as the same object; the list keeps every object alive, so
    # that no two of them can have one `id`.
    prompts = list(questions.prompts)
    for prompt, *texts in zip(prompts, *questions.texts, strict=True):
        begun = by_object.get(id(prompt))
        if begun is None:
            text = canonical_prompt(prompt)
            begun = by_text.get(text)
            if begun is None:
                begun = by_text[text] = start.copy()
                begun.update(_measured(text))
            by_object[id(prompt)] = begun
        digest = begun.copy()
        for text in texts:
            digest.update(_measured(text))
        keys.append(digest.digest())
    return keys


def canonical_prompt(prompt: Prompt) -> str:
    """One text for equal prompts; text and a single chat turn of the same words differ, as models read them apart."""
    return json.dumps(prompt, sort_keys=True, ensure_ascii=False)


def _measured(text: str) -> bytes:
    # Half a surrogate pair cannot be UTF-8 in the strict sense, but a sampled response may hold one.
    content = text.encode("utf-8", "surrogatepass")
    return len(content).to_bytes(8, "little") + content
