"""From a model's reply to a win probability: log-probabilities of the choices where there are any, else strict text."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from magnetar.judges.language_model.templates import Choices, JudgeTemplate

__all__ = ["Verdict", "choice_of_token", "verdict_of_logprobs", "verdict_of_text"]

ROUNDING = 1e-3
"""By how much a probability may exceed one: servers compute in half precision."""
# What models put around or before a single word: quotation marks, emphasis, brackets; "Answer:", "The verdict is".
_AROUND = r"[\s*_`'\"“”‘’«»()\[\]{}.,:;!]*"
_BEFORE = r"(?:(?:the\s+|my\s+)?(?:final\s+)?(?:better\s+)?(?:answer|verdict|choice|winner|response)(?:\s+is)?)?"
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """What a reply says.

    Attributes:
        win_prob: P(first beats second), in [0, 1]; None when the reply cannot be read.
        problem: Why it cannot be read, in words; empty when it can.
        choice_mass: Probability that the model put on the choices together, in [0, 1]; None for text.
    """

    win_prob: float | None
    problem: str = ""
    choice_mass: float | None = None


def choice_of_token(token: str, choices: Choices) -> int | None:
    """Which choice a first token decides for.

    Args:
        token: Text of a token, with or without blanks before it.
        choices: The words.

    Returns:
        Index into ``choices.words`` of the one choice that the token is or begins; None for none or several.
    """
    text = token.strip()
    if not text:
        return None
    begun = [at for at, word in enumerate(choices.words) if word.startswith(text)]
    return begun[0] if len(begun) == 1 else None


def verdict_of_logprobs(logprobs: Mapping[str, float], choices: Choices, min_choice_mass: float) -> Verdict:
    r"""Renormalise the probabilities of the tokens at the answer's place over the choices.

    ``P = (p_first + p_tie / 2) / (p_first + p_second + p_tie)``, where a choice's probability is the sum over all
    tokens that are or begin its word.

    Args:
        logprobs: Log-probability of each token, nats; tokens that are not listed count as impossible.
        choices: The words.
        min_choice_mass: Smallest sum over the choices that still counts as an answer, in [0, 1].

    Returns:
        The verdict, with the mass on the choices.
    """
    mass = [0.0, 0.0, 0.0]
    total = 0.0
    for token, logprob in logprobs.items():
        if not isinstance(logprob, int | float) or math.isnan(logprob) or logprob > ROUNDING:
            return Verdict(None, f"token {token!r} has the log-probability {logprob!r}, expected at most 0")
        probability = math.exp(logprob)
        total += probability
        choice = choice_of_token(token, choices)
        if choice is not None:
            mass[choice] += probability
    if total > 1.0 + 10 * ROUNDING:
        return Verdict(None, f"the probabilities of the tokens sum to {total:.4g}, expected at most 1")
    chosen = sum(mass)
    if chosen < min_choice_mass or chosen == 0.0:
        likely = max(logprobs, key=lambda token: logprobs[token], default="")
        return Verdict(
            None,
            f"only {chosen:.3g} of the probability is on {', '.join(choices.words)}, expected at least "
            f"{min_choice_mass:g}; the likeliest token is {likely.lstrip(chr(0))!r}",
            min(chosen, 1.0),
        )
    return Verdict((mass[0] + mass[2] / 2.0) / chosen, "", min(chosen, 1.0))


def verdict_of_text(text: str, template: JudgeTemplate) -> Verdict:
    """Read exactly one verdict from a reply, or none.

    Without a marker the reply must be one of the words, at most with quotation marks around it or "Answer:" before
    it; a sentence that merely contains one is no verdict. With a marker there must be exactly one line that begins
    with it, and the same holds of what follows it.

    Args:
        text: The reply.
        template: Its choices and its marker.

    Returns:
        The verdict; 1/2 only for a word that stands for a tie.
    """
    words = template.choices.words
    text = _THOUGHTS.sub("", text)
    part = text
    if template.verdict_marker is not None:
        line = re.compile(rf"^[\s*_#>]*{re.escape(template.verdict_marker)}(.*)$", re.MULTILINE)
        lines = line.findall(text)
        if len(lines) != 1:
            return Verdict(None, f"the reply has {len(lines)} lines beginning with {template.verdict_marker!r}")
        part = lines[0]
    word = "|".join(re.escape(word) for word in words)
    found = re.fullmatch(rf"{_AROUND}(?i:{_BEFORE}){_AROUND}({word}){_AROUND}", part)
    if found is None:
        shown = part.strip()
        shown = shown if len(shown) <= 80 else shown[:79] + "…"
        return Verdict(None, f"the reply {shown!r} is none of {', '.join(words)}")
    return Verdict((1.0, 0.0, 0.5)[words.index(found[1])])
