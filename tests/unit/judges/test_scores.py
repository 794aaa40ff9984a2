"""Judges that score, and those that only compare."""

import numpy as np
import pytest
from scipy.special import expit

from magnetar.errors import JudgeError
from magnetar.judges import (
    Cached,
    FunctionJudge,
    MatrixJudge,
    ScoreFunctionJudge,
    group_scores,
    parse_scoring_spec,
    require_scores,
)

PROMPTS = ["a", "b"]
GROUPS = [["x", "yy", "x"], ["zzz", "", "w"]]


def lengths(prompts: list[str], responses: list[str]) -> list[float]:
    return [len(prompt) + 2.0 * len(response) for prompt, response in zip(prompts, responses, strict=True)]


def test_scores_and_win_probabilities_of_a_group_are_those_of_the_judge(tmp_path) -> None:
    judge = ScoreFunctionJudge(lengths, temperature=2.0, version="1")
    for asked in (judge, Cached(judge, tmp_path / "cache")):
        scores, win_prob = group_scores(require_scores(asked, "a test"), PROMPTS, GROUPS)
        expected = np.array([[3.0, 5.0, 3.0], [7.0, 1.0, 3.0]])
        np.testing.assert_array_equal(scores, expected)
        np.testing.assert_allclose(win_prob, expit((expected[:, :, None] - expected[:, None, :]) / 2.0), rtol=1e-12)
        np.testing.assert_allclose(win_prob, judge.group_win_prob(PROMPTS, GROUPS), rtol=1e-12)


@pytest.mark.parametrize("spec", ["panel", "general:demo", "pairwise:demo", "llm:demo"])
def test_a_spec_of_a_judge_that_compares_is_refused_before_anything_is_loaded(spec: str) -> None:
    with pytest.raises(JudgeError, match=rf"method 'ppo' maximises one score per response, but judge '{spec}'"):
        parse_scoring_spec(spec, "method 'ppo'")


@pytest.mark.parametrize("spec", ["reward:demo", "cost:demo", "python:test_scores:lengths"])
def test_specs_of_judges_that_score_pass(spec: str) -> None:
    assert str(parse_scoring_spec(spec, "method 'ppo'")) == spec


@pytest.mark.parametrize(
    "judge",
    [
        FunctionJudge(lambda prompts, first, second: [0.5] * len(prompts), name="pairs", version="1"),
        MatrixJudge(["x", "y"], np.full((2, 2), 0.5)),
    ],
)
def test_a_judge_that_compares_cannot_give_rewards(judge) -> None:
    with pytest.raises(JudgeError, match=r"method 'ppo' maximises one score per response, but judge .* 'mpo'"):
        require_scores(judge, "method 'ppo'")
