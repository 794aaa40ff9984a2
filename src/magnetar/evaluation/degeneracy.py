"""Simple statistics of a set of responses that make a cheap trick visible: empty, repeated or looping answers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Degeneracy", "degeneracy", "distinct_n", "looping_share"]


@dataclass(frozen=True)
class Degeneracy:
    """How varied a set of responses is; shares in [0, 1] over all responses of all prompts.

    Attributes:
        empty: Share of responses with no visible character.
        repeated_same_prompt: Share of responses that some other response *to the same prompt* equals; None with one
            response per prompt.
        repeated_across_prompts: Share of responses that also answer *another* prompt, word for word: a canned answer.
        looping: Mean share of a response's word 3-grams that it has said before.
        distinct_1: Distinct words / words over all responses pooled. Falls with the amount of text, so compare sides
            of similar length only; None when there is no text.
        distinct_2: Distinct word pairs / word pairs likewise.
        distinct_3: Distinct word triples / word triples likewise.
    """

    empty: float
    repeated_same_prompt: float | None
    repeated_across_prompts: float
    looping: float
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None


def degeneracy(responses: Sequence[Sequence[str]]) -> Degeneracy:
    """Measure emptiness and repetition; white space at the ends and its kind are ignored in comparisons.

    Args:
        responses: For each prompt its responses, at least one response in all.

    Returns:
        The statistics.
    """
    groups = [[" ".join(text.split()) for text in group] for group in responses]
    texts = [text for group in groups for text in group]
    prompts_with = Counter(text for group in groups for text in set(group))
    same = [count for group in groups for count in Counter(group).values()]
    grouped = any(len(group) > 1 for group in groups)
    return Degeneracy(
        empty=_share(not text for text in texts),
        repeated_same_prompt=sum(count for count in same if count > 1) / len(texts) if grouped else None,
        repeated_across_prompts=_share(prompts_with[text] > 1 for text in texts),
        looping=sum(map(looping_share, texts)) / len(texts),
        distinct_1=distinct_n(texts, 1),
        distinct_2=distinct_n(texts, 2),
        distinct_3=distinct_n(texts, 3),
    )


def distinct_n(texts: Iterable[str], n: int) -> float | None:
    """Distinct n-grams of white-space separated words divided by all n-grams, pooled; None when there are none.

    Args:
        texts: Any number of texts.
        n: Words in an n-gram, at least 1.

    Returns:
        A share in (0, 1], or None.

    Source:
        arXiv:1510.03055 (distinct-1 and distinct-2).
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def looping_share(text: str, n: int = 3) -> float:
    """Share of the text's word n-grams that occurred earlier in it: 0 for prose, near 1 for a loop.

    Args:
        text: One response.
        n: Words in an n-gram, at least 1.

    Returns:
        A share in [0, 1); 0 for a text shorter than n words.
    """
    grams = _ngrams(text, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values)
