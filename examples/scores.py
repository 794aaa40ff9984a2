"""A judge that scores: one number for each response, for methods that maximise a reward (`ppo`, `rloo`, `grpo`).

    magnetar train --model demo --dataset demo --judge python:examples.scores:plain_words --method rloo ...

Run as a script it prints the scores of a few answers. A trained reward model (`magnetar preference --kind reward`, then
`--judge reward:FOLDER`) is the judge of choice; this one needs nothing.
"""

from collections.abc import Sequence

from magnetar.types import Prompt

MOST_WORDS = 60


def plain_words(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
    """Score each response: short words and a finished sentence are good, no answer and a long one are bad."""
    return [_score(response) for response in responses]


def _score(response: str) -> float:
    words = response.split()
    if not words:
        return -2.0
    letters = sum(map(len, words)) / len(words)
    finished = response.rstrip().endswith((".", "!", "?"))
    return 0.5 * (5.0 - letters) + float(finished) - max(0.0, len(words) / MOST_WORDS - 1.0)


def main() -> None:
    answers = ["Rain falls when clouds are full.", "Precipitation notwithstanding, meteorological", ""]
    for answer, score in zip(answers, plain_words(["Why does it rain?"] * len(answers), answers), strict=True):
        print(f"{score:+.2f}  {answer!r}")


if __name__ == "__main__":
    main()
