"""Reading of replies: probabilities renormalised, text strict, nothing guessed."""

import math

import pytest

from magnetar.errors import JudgeError
from magnetar.judges.language_model import Choices, JudgeTemplate, LanguageModelJudge
from magnetar.judges.language_model.answers import choice_of_token, verdict_of_logprobs, verdict_of_text
from magnetar.judges.language_model.backends.base import Backend, Reply

AB = Choices("A", "B")
WORDS = Choices("first", "second", "same")


def template(choices: Choices = AB, marker: str | None = None) -> JudgeTemplate:
    return JudgeTemplate("t", "", "{prompt}{first}{second}", choices, marker)


@pytest.mark.parametrize(
    ("token", "expected"),
    [("A", 0), (" A", 0), ("\nB", 1), ("a", None), ("As", None), ("", None), (" ", None), ("**", None)],
)
def test_a_token_is_the_choice_that_it_spells(token: str, expected: int | None):
    assert choice_of_token(token, AB) == expected


@pytest.mark.parametrize(
    ("token", "expected"), [("f", 0), ("first", 0), ("s", None), ("se", 1), ("sa", 2), ("ir", None)]
)
def test_a_token_may_be_the_beginning_of_one_choice_but_not_of_two(token: str, expected: int | None):
    assert choice_of_token(token, WORDS) == expected


def logs(**probabilities: float) -> dict[str, float]:
    return {token: math.log(value) for token, value in probabilities.items()}


def test_probabilities_are_renormalised_over_the_choices():
    verdict = verdict_of_logprobs({**logs(A=0.5, B=0.2, Hm=0.2), " A": math.log(0.1)}, AB, 0.1)
    assert verdict.win_prob == pytest.approx(0.6 / 0.8)
    assert verdict.choice_mass == pytest.approx(0.8)


def test_a_tie_counts_half():
    verdict = verdict_of_logprobs(logs(first=0.3, second=0.1, same=0.4), WORDS, 0.1)
    assert verdict.win_prob == pytest.approx((0.3 + 0.2) / 0.8)


def test_too_little_mass_on_the_choices_is_unreadable_and_reported():
    verdict = verdict_of_logprobs(logs(A=0.05, B=0.04, Hello=0.9), AB, 0.1)
    assert verdict.win_prob is None
    assert verdict.choice_mass == pytest.approx(0.09)
    assert (
        "only 0.09 of the probability is on A, B, expected at least 0.1; the likeliest token is 'Hello'"
        in verdict.problem
    )
    assert verdict_of_logprobs(logs(A=0.06, B=0.05, Hello=0.8), AB, 0.1).win_prob == pytest.approx(6 / 11)
    # Even with no limit: a choice of probability zero against another is no answer.
    assert verdict_of_logprobs({"A": -math.inf, "B": -math.inf, "x": 0.0}, AB, 0.0).win_prob is None
    assert verdict_of_logprobs({}, AB, 0.0).win_prob is None


@pytest.mark.parametrize(
    "word",
    [
        "A",
        " A ",
        "A.",
        "**A**",
        '"A"',
        "(A)",
        "[[A]]",
        "Answer: A",
        "The better response is A.",
        "Verdict: **A**",
        "final answer: A",
        '{"answer": "A"}',
        "<think>B? No, A.</think>\nA",
    ],
)
def test_one_verdict_is_read(word: str):
    assert verdict_of_text(word, template()).win_prob == 1.0


@pytest.mark.parametrize(
    "word",
    [
        "",
        "A or B",
        "A B",
        "a",
        "C",
        "A good answer",
        "I choose A",
        "AB",
        "Neither",
        "A\nB",
        "B, not A",
        "A A",
        "A: because",
        "<think>A",
        "Answer: A or B",
    ],
)
def test_what_is_not_exactly_one_verdict_is_none(word: str):
    verdict = verdict_of_text(word, template())
    assert verdict.win_prob is None
    assert verdict.problem


def test_a_tie_is_a_verdict_only_where_it_is_offered():
    assert verdict_of_text("same", template(WORDS)).win_prob == 0.5
    assert verdict_of_text("second", template(WORDS)).win_prob == 0.0
    assert verdict_of_text("tie", template()).win_prob is None


def test_behind_reasoning_the_one_line_with_the_marker_counts():
    judged = template(marker="Verdict:")
    assert verdict_of_text("A is long. B is right.\nVerdict: B", judged).win_prob == 0.0
    assert verdict_of_text("**Verdict: A**\n", judged).win_prob == 1.0
    assert verdict_of_text("A", judged).win_prob is None
    assert verdict_of_text("Verdict: A\nOn second thoughts\nVerdict: B", judged).problem.startswith(
        "the reply has 2 lines"
    )
    assert verdict_of_text("Verdict: A or B", judged).win_prob is None


class Replies(Backend):
    """Gives one reply to every question."""

    model = "replies"

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    def replies(self, questions, asking):
        yield from ((at, self.reply) for at in range(len(questions)))

    def identity(self):
        return {}

    def count_tokens(self, text: str) -> int:
        return len(text)


@pytest.mark.parametrize("logprob", [math.nan, 0.7, None])
def test_numbers_that_are_no_probabilities_are_not_mended_by_the_text(logprob):
    """The text would be read where the probabilities were merely low."""
    low = LanguageModelJudge(Replies(Reply("**A**", {"**": -0.01, "A": -9.0})))
    assert low.pair_win_prob(["p"], ["a"], ["b"])[0] == 1.0
    wrong = LanguageModelJudge(Replies(Reply("**A**", {"**": logprob, "A": -9.0})))
    with pytest.raises(JudgeError, match="expected at most 0"):
        wrong.pair_win_prob(["p"], ["a"], ["b"])
