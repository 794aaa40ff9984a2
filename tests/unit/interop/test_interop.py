"""What passes between TRL's forms and judges, without a trainer."""

from typing import Any

import numpy as np
import pytest

from magnetar.errors import DataError, JudgeError
from magnetar.evaluation.judging import group_payoffs
from magnetar.interop import RewardFunctionJudge, grpo_reward
from magnetar.interop.text import completion_text, prompt_of_trl
from magnetar.judges import FunctionJudge, Symmetrized, build_judge
from magnetar.judges.wrappers import Cached

SEEN: list[Any] = []


def length_reward(completions: list[Any], **kwargs: Any) -> list[float]:
    """In the form of TRL's documentation: completions and whatever else."""
    SEEN.append((completions, kwargs))
    return [float(len(c if isinstance(c, str) else c[0]["content"])) for c in completions]


def picky_reward(prompts: list[Any], completions: list[Any], answer: list[str]) -> list[float | None]:
    return [None if c == "?" else float(c == a) for c, a in zip(completions, answer, strict=True)]


def test_payoffs_are_means_over_the_others_without_masked_pairs() -> None:
    nan = np.nan
    matrix = np.array([[0.5, 0.9, nan, nan], [0.1, 0.5, 0.4, nan], [nan, 0.6, 0.5, nan], [nan, nan, nan, 0.5]])
    assert group_payoffs(matrix) == pytest.approx([0.9, 0.25, 0.6, nan], nan_ok=True)


def test_payoff_is_an_unbiased_estimate_of_the_win_probability_against_the_policy() -> None:
    # Mean over all groups of three drawn with replacement: E over an opponent from the same policy, exactly.
    P = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
    policy = np.array([0.5, 0.3, 0.2])
    total = np.zeros(3)
    for i in range(3):
        for j in range(3):
            for k in range(3):
                total[i] += policy[j] * policy[k] * group_payoffs(P[np.ix_([i, j, k], [i, j, k])])[0]
    assert total == pytest.approx(P @ policy)


def test_repeated_prompts_apart_are_groups_of_their_own() -> None:
    reward = grpo_reward(length_reward_judge())
    prompts, completions = ["p", "p", "q", "q", "p", "p"], ["a", "bb", "a", "a", "aaa", "a"]
    gap = lambda d: 1 / (1 + np.exp(-d))  # noqa: E731
    expected = [gap(-1), gap(1), 0.5, 0.5, gap(2), gap(-2)]
    assert reward(prompts, completions) == pytest.approx(expected)


def length_reward_judge() -> RewardFunctionJudge:
    return RewardFunctionJudge(length_reward)


def test_reward_functions_get_trls_forms() -> None:
    SEEN.clear()
    turns = [{"role": "user", "content": "Hello?"}]
    judge = RewardFunctionJudge(length_reward, columns={"language": "en"}, temperature=2.0)
    answer = judge.pair_win_prob([turns], ["four"], ["fo"])
    assert answer == pytest.approx([1 / (1 + np.exp(-1.0))])
    completions, extra = SEEN[0]
    assert completions == [[{"role": "assistant", "content": text}] for text in ("four", "fo")]
    assert extra == {"prompts": [turns, turns], "language": ["en", "en"]}
    judge.pair_win_prob(["text"], ["four"], ["fo"])
    assert SEEN[1][0] == ["four", "fo"]


def test_a_reward_function_that_cannot_be_called_or_does_not_answer_is_named() -> None:
    with pytest.raises(JudgeError, match=r"missing a required argument: 'answer'.*columns"):
        RewardFunctionJudge(picky_reward)
    judge = RewardFunctionJudge(picky_reward, columns={"answer": "yes"})
    assert judge.scores(["p"], ["yes"]).tolist() == [1.0]
    with pytest.raises(JudgeError, match=r"no reward \(None\) to response '\?'"):
        judge.scores(["p"], ["?"])
    with pytest.raises(JudgeError, match="temperature = 0"):
        RewardFunctionJudge(length_reward, temperature=0)

    async def later(prompts: Any, completions: Any) -> list[float]:
        return [0.0] * len(prompts)

    with pytest.raises(JudgeError, match="asynchronous"):
        RewardFunctionJudge(later)


def test_identity_of_a_reward_function_is_its_code_and_settings(tmp_path: Any) -> None:
    one = RewardFunctionJudge(length_reward)
    assert one.identity() == RewardFunctionJudge(length_reward).identity()
    others = [
        RewardFunctionJudge(length_reward, temperature=2.0),
        RewardFunctionJudge(length_reward, columns={"a": 1}),
        RewardFunctionJudge(length_reward, version="2"),
        RewardFunctionJudge(picky_reward, columns={"answer": "x"}),
    ]
    assert len({one.identity(), *(other.identity() for other in others)}) == 5
    kept = Cached(one, tmp_path / "kept.sqlite")
    assert kept.pair_win_prob(["p"], ["aa"], ["a"]) == pytest.approx(one.pair_win_prob(["p"], ["aa"], ["a"]))


def test_any_spec_function_or_judge_becomes_a_reward() -> None:
    def better(prompts: Any, first: Any, second: Any) -> list[float]:
        return [0.9 if a > b else 0.2 for a, b in zip(first, second, strict=True)]

    rewards = [
        grpo_reward(better)(["p", "p"], ["b", "a"]),
        grpo_reward(Symmetrized(FunctionJudge(better)))(["p", "p"], ["b", "a"]),
        grpo_reward(build_judge(better))(["p", "p"], ["b", "a"]),
    ]
    assert all(one == pytest.approx([0.85, 0.15]) for one in rewards)
    assert grpo_reward(better, name="mine").__name__ == "mine"
    with pytest.raises(JudgeError, match="unknown judge"):
        grpo_reward("panle")


def test_completions_and_prompts_of_every_form() -> None:
    said = [
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is 42."}]},
    ]
    assert completion_text("plain") == "plain" and completion_text(said) == "It is 42."
    assert completion_text(said[:1]) == "" and completion_text([{"role": "tool", "content": "x"}]) == ""
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}], "name": "n"}]
    assert prompt_of_trl(prompt) == [{"role": "user", "content": "What?"}] and prompt_of_trl("p") == "p"
    for wrong in (7, [1], {"role": "user"}):
        with pytest.raises(DataError, match="expected text or a list of chat turns"):
            prompt_of_trl(wrong)
    with pytest.raises(DataError, match="content of a turn is a int"):
        completion_text([{"role": "assistant", "content": 3}])
