from dataclasses import replace

import numpy as np
import pytest

from magnetar.evaluation import Matchup, MatchupSummary, Responses, summarize, suspicions


def summary_of(policy: list[str], opponent: list[str], truncated: bool = False) -> MatchupSummary:
    b = len(policy)
    return summarize(
        Matchup(
            prompts=[f"prompt {i}" for i in range(b)],
            categories=None,
            policy=Responses([[text] for text in policy], truncated_BG=np.full((b, 1), truncated)),
            opponent=Responses([[text] for text in opponent], truncated_BG=np.zeros((b, 1), dtype=bool)),
            win_prob_BGH=np.linspace(0.4, 0.9, b)[:, None, None],
            judge="judge",
            policy_name="new",
            opponent_name="old",
        ),
        bootstrap=100,
    )


HONEST = [f"answer {i} says {chr(97 + i)} and stops there" for i in range(20)]


def test_honest_answers_raise_no_suspicion() -> None:
    assert suspicions(summary_of(HONEST, list(reversed(HONEST)))) == []


@pytest.mark.parametrize(
    ("policy", "truncated", "words"),
    [
        ([*HONEST[:18], "", " "], False, "Empty responses: 10%, the opponent's 0%"),
        (["I cannot help with that, I am sorry."] * 20, False, "The same answer to different prompts: 100%"),
        ([f"{text} and so on and so on and so on" for text in HONEST], False, "Looping text"),
        ([f"{text} {text.replace('a', 'o')} {text.upper()}" for text in HONEST], False, "Longer answers"),
        ([f"short {i}" for i in range(20)], False, "Shorter answers"),
        (HONEST, True, "cut off for want of room: 100%, the opponent's 0%"),
    ],
)
def test_cheap_tricks_are_named(policy: list[str], truncated: bool, words: str) -> None:
    assert any(words in line for line in suspicions(summary_of(policy, HONEST, truncated)))


def test_the_opponents_faults_are_not_the_policys() -> None:
    assert not any("Empty" in line for line in suspicions(summary_of(HONEST, [*HONEST[:10], *[""] * 10])))


def test_unknown_truncation_is_not_compared() -> None:
    summary = summary_of(HONEST, HONEST, truncated=True)
    unknown = replace(summary, opponent=replace(summary.opponent, truncated=None))
    assert suspicions(summary) != [] and suspicions(unknown) == []


def test_fragments_on_both_sides_are_named_though_neither_is_worse() -> None:
    summary = summary_of(HONEST, HONEST, truncated=True)
    both = replace(summary, opponent=replace(summary.opponent, truncated=0.95))
    assert any("the judge compares beginnings" in line for line in suspicions(both))
    whole = replace(summary, policy=replace(summary.policy, truncated=0.45), opponent=both.opponent)
    whole = replace(whole, opponent=replace(whole.opponent, truncated=0.5))
    assert not any("cut off" in line for line in suspicions(whole))


def test_a_judge_that_the_policy_learned_from_is_named() -> None:
    summary = summary_of(HONEST, HONEST)
    assert suspicions(summary, "another") == suspicions(summary) == []
    (line,) = suspicions(summary, summary.judge)
    assert "learned from" in line and "eval_judge" in line
