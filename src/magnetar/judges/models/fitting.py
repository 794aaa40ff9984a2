"""Inputs longer than a judge can read, cut so that what matters is still there.

The rule: no part is longer than c characters, for the largest c with which the whole input fits. So the longest part is
cut until all fit, a short response is never cut because of a long prompt, and a long prompt is never all that is read.
A prompt loses its beginning, a response its middle: what was asked last, how an answer begins and how it ends stay.
"""

from collections.abc import Callable, Sequence

from magnetar.data.prompts import prompt_text
from magnetar.errors import JudgeError
from magnetar.judges.checks import short_text
from magnetar.types import Prompt

__all__ = ["GAP", "Question", "cut_prompt", "cut_response", "fit_questions"]

Question = tuple[Prompt, tuple[str, ...]]
"""A prompt and the responses to it that are read together: one, or two for a pairwise judge."""
GAP = " … "
"""Stands where the middle of a response was."""
CLOSE_ENOUGH = 0.98  # of the limit: a further round would tokenise everything again
AIM = 0.99


def cut_prompt(prompt: Prompt, characters: int) -> Prompt:
    """The end of a prompt.

    Args:
        prompt: Text or chat turns.
        characters: How many to keep, at least 0.

    Returns:
        The last characters of a text. Of chat turns, the last ones, beginning with a turn of the user if there is one
        (templates refuse others); the turn at which the limit is reached loses its beginning.
    """
    if isinstance(prompt, str):
        return prompt[max(0, len(prompt) - characters) :]
    kept = []
    for turn in reversed(prompt):
        content = turn["content"][max(0, len(turn["content"]) - characters) :]
        kept.append({**turn, "content": content})
        characters -= len(content)
        if characters <= 0:
            break
    kept.reverse()
    whole = len(kept) == len(prompt) and kept[0]["content"] == prompt[0]["content"]
    first = next((at for at, turn in enumerate(kept) if turn["role"] == "user"), 0)
    return kept if whole else kept[first:]


def cut_response(response: str, characters: int) -> str:
    """The beginning and the end of a response, with a gap between them that counts as nothing.

    Args:
        response: The text.
        characters: How many to keep, at least 0.
    """
    if len(response) <= characters:
        return response
    head = (characters + 1) // 2
    return response[:head] + GAP + response[len(response) - (characters - head) :]


def fit_questions(
    questions: Sequence[Question],
    count_tokens: Callable[[Sequence[Question]], Sequence[int]],
    limit: int,
    judge: str = "judge",
) -> list[Question]:
    """Cut questions that are too long, each by the rule above.

    Args:
        questions: All of them too long.
        count_tokens: How many tokens the input of each question has.
        limit: Most tokens.
        judge: Name of the judge, for the message.

    Returns:
        Questions within the limit: within two per cent of it as a rule, a few tokens for short limits.

    Raises:
        JudgeError: If the limit leaves no room for a single character of each part.
    """
    fits, fails = [0] * len(questions), [_longest(question) for question in questions]
    low, high = list(count_tokens([_cut(question, 0) for question in questions])), list(count_tokens(questions))
    found: list[Question] = [_cut(question, 0) for question in questions]
    active = [at for at in range(len(questions)) if low[at] <= limit and fails[at] > 1]
    rounds = 0
    while active:
        rounds += 1
        guesses = []
        for at in active:
            # Tokens grow with characters nearly in proportion; every third guess is the middle, so that it ends soon.
            share = (AIM * limit - low[at]) / max(high[at] - low[at], 1) if rounds % 3 else 0.5
            inside = fits[at] + int(share * (fails[at] - fits[at]))
            guesses.append(min(max(inside, fits[at] + 1), fails[at] - 1))
        tried = [_cut(questions[at], guess) for at, guess in zip(active, guesses, strict=True)]
        for at, guess, question, size in zip(active, guesses, tried, count_tokens(tried), strict=True):
            if size <= limit:
                fits[at], low[at], found[at] = guess, size, question
            else:
                fails[at], high[at] = guess, size
        active = [at for at in active if fails[at] - fits[at] > 1 and low[at] < CLOSE_ENOUGH * limit]
    for at, characters in enumerate(fits):
        if characters == 0:
            raise JudgeError(
                f"judge {judge!r} reads at most {limit} tokens, and its template alone takes {low[at]}, which leaves "
                f"no room for the response {short_text(questions[at][1][0])}; raise max_length"
            )
    return found


def _longest(question: Question) -> int:
    """Length of the longest part, in characters."""
    prompt, responses = question
    return max(len(prompt_text(prompt)), *map(len, responses))


def _cut(question: Question, characters: int) -> Question:
    prompt, responses = question
    return cut_prompt(prompt, characters), tuple(cut_response(text, characters) for text in responses)
