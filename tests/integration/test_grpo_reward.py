"""Judges as rewards inside TRL's own trainers, on one process and on two."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from grpo_runs import GAME, PROMPTS, Recorded, run

from magnetar.errors import JudgeError
from magnetar.interop import grpo_reward
from magnetar.judges import Judge
from processes import run_two_processes

pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The tokenizer has new PAD/BOS/EOS tokens:UserWarning"),
]

SCRIPT = """
import grpo_runs
from test_grpo_reward import FailsOnProcessOne
from accelerate import PartialState
from datasets import Dataset
from magnetar.errors import JudgeError
from magnetar.interop import grpo_reward

folder, runs, told = Path(sys.argv[1]), [], []
for number, settings in enumerate(json.loads(sys.argv[2])):
    reward = grpo_runs.Recorded(grpo_reward(grpo_runs.GAME.judge()))
    trainer = grpo_runs.run(folder / str(number), reward, **settings)
    runs.append({"calls": reward.calls, "rows": [row for row in trainer.state.log_history if "reward" in row]})
prompts, texts = grpo_runs.PROMPTS, grpo_runs.GAME.texts
answers = Dataset.from_dict({"prompt": prompts, "answer": [texts[0]] * len(prompts)})
for column in (None, "answer"):
    try:
        reward = grpo_reward(FailsOnProcessOne(), opponent_column=column)
        grpo_runs.run(folder / f"failing-{column}", reward, dataset=answers)
    except JudgeError as error:
        told.append(str(error))
state = PartialState()
(folder / f"process-{state.process_index}.json").write_text(json.dumps({"runs": runs, "told": told}))
state.wait_for_everyone()
state.destroy_process_group()
"""


class FailsOnProcessOne(type(GAME.judge())):
    """The game's judge, out of order on the second process."""

    def __init__(self) -> None:
        super().__init__(GAME.texts, GAME.game.P)

    def _group_win_prob(self, prompts: Any, responses: Any) -> Any:
        self._fail()
        return super()._group_win_prob(prompts, responses)

    def _pair_win_prob(self, prompts: Any, first: Any, second: Any) -> Any:
        self._fail()
        return super()._pair_win_prob(prompts, first, second)

    def _fail(self) -> None:
        if os.environ.get("RANK") == "1":
            raise JudgeError("the server is down")


class Silent(Judge):
    """A judge that does not answer about some texts."""

    name = "silent"
    may_abstain = True

    def __init__(self, silent: set[str]) -> None:
        self.silent = silent

    def _pair_win_prob(self, prompts: Any, first: Any, second: Any) -> Any:
        return np.array([np.nan if {a, b} & self.silent else 0.75 for a, b in zip(first, second, strict=True)])


def payoffs_by_hand(prompts: list[Any], completions: list[str]) -> list[float]:
    """Mean of the game's own matrix over the other completions of the prompt, group by group."""
    matrix, place = np.asarray(GAME.game.P), {text: i for i, text in enumerate(GAME.texts)}
    size = next((i for i, prompt in enumerate(prompts) if prompt != prompts[0]), len(prompts))
    rewards = []
    for start in range(0, len(prompts), size):
        assert len(set(prompts[start : start + size])) == 1
        group = [place[text] for text in completions[start : start + size]]
        for at, mine in enumerate(group):
            others = [matrix[mine, theirs] for other, theirs in enumerate(group) if other != at]
            rewards.append(float(np.mean(others)))
    return rewards


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_rewards_in_a_real_step_are_the_payoffs_within_the_group(tmp_path: Path, kind: str) -> None:
    reward = Recorded(grpo_reward(GAME.judge()))
    before = GAME.model(0)
    trainer = run(tmp_path, reward, kind, num_generations=3)
    assert len(reward.calls) == 2
    for call in reward.calls:
        assert call["rewards"] == pytest.approx(payoffs_by_hand(call["prompts"], call["completions"]))
    rows = [row for row in trainer.state.log_history if "reward" in row]
    assert [row["rewards/matrix/mean"] for row in rows] == pytest.approx([0.5, 0.5])  # P + Pᵀ = 1 within a group
    assert all(row["judge/comparisons"] == 6 and row["judge/unanswered"] == 0 for row in rows)
    assert all(0.0 <= row["judge/cyclic_triples"] <= 1.0 for row in rows)
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), trainer.model.parameters(), strict=True)]
    assert any(moved)


def test_chat_turns_reach_the_judge_as_turns_and_text(tmp_path: Path) -> None:
    asked: list[Any] = []

    def shorter(prompts: Any, responses: Any) -> list[float]:
        asked.extend(zip(prompts, responses, strict=True))
        return [-len(response) for response in responses]

    GAME.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    try:
        turns = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
        reward = Recorded(grpo_reward(shorter))
        run(tmp_path, reward, dataset=Dataset.from_dict({"prompt": turns}), max_steps=1)
    finally:
        GAME.tokenizer.chat_template = None
    assert all(prompt in turns and isinstance(response, str) for prompt, response in asked)
    (call,) = reward.calls
    assert all(completion[0]["role"] == "assistant" for completion in call["completions"])
    texts = [completion[0]["content"] for completion in call["completions"]]
    for at in range(0, len(texts), 2):
        a, b = len(texts[at]), len(texts[at + 1])
        expected = 1 / (1 + np.exp(a - b))
        assert call["rewards"][at : at + 2] == pytest.approx([expected, 1 - expected])


def test_an_answer_of_the_dataset_can_be_the_opponent(tmp_path: Path) -> None:
    matrix, place = np.asarray(GAME.game.P), {text: i for i, text in enumerate(GAME.texts)}
    answers = [GAME.texts[i % 5] for i in range(len(PROMPTS))]
    reward = Recorded(grpo_reward(GAME.judge(), opponent_column="answer", name="beats answer"))
    dataset = Dataset.from_dict({"prompt": PROMPTS, "answer": answers})
    trainer = run(tmp_path, reward, dataset=dataset, max_steps=1)
    (call,) = reward.calls
    opponent = dict(zip(PROMPTS, answers, strict=True))
    expected = [
        matrix[place[text], place[opponent[prompt]]]
        for prompt, text in zip(call["prompts"], call["completions"], strict=True)
    ]
    assert call["rewards"] == pytest.approx(expected)
    assert any("rewards/beats answer/mean" in row for row in trainer.state.log_history)
    with pytest.raises(JudgeError, match="no column 'reference'"):
        run(tmp_path, grpo_reward(GAME.judge(), opponent_column="reference"), dataset=dataset, max_steps=1)


@pytest.mark.filterwarnings("ignore:All reward functions returned None")
def test_unanswered_completions_have_no_reward(tmp_path: Path) -> None:
    silent = {text for text in GAME.texts if len(text) % 2}
    reward = Recorded(grpo_reward(Silent(silent)))
    trainer = run(tmp_path, reward, num_generations=6)
    given = []
    for call in reward.calls:
        texts = call["completions"]
        for at, text in enumerate(texts):
            others = texts[:at] + texts[at + 1 :]
            # An equal text is a tie without a question; about the rest the judge is asked, with the earlier one first.
            known = [0.5] * others.count(text)
            for other_at, other in enumerate(texts):
                if other != text and not {text, other} & silent:
                    known.append(0.75 if at < other_at else 0.25)
            given.append(call["rewards"][at])
            assert given[-1] == (pytest.approx(np.mean(known)) if known else None)
    assert None in given and len(set(given)) > 2
    assert all(np.isfinite(row["loss"]) for row in trainer.state.log_history if "loss" in row)
    assert any(row["judge/unanswered"] > 0 for row in trainer.state.log_history if "reward" in row)


def test_a_group_of_one_is_refused_with_its_fix(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match="num_generations"):
        grpo_reward(GAME.judge())(prompts=["a", "b", "b"], completions=["rock", "paper", "well"])


CASES = [
    {"per_device_train_batch_size": 3, "num_generations": 2},  # the middle group is split
    {"per_device_train_batch_size": 2, "num_generations": 4},  # every group is
]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The cases on two processes, then a judge that fails on one of them; what each process recorded."""
    folder = tmp_path_factory.mktemp("two")
    run_two_processes(folder, CASES, SCRIPT, Path(__file__).parent)
    return [json.loads((folder / f"process-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", [0, 1], ids=["middle-group-split", "every-group-split"])
def test_groups_split_over_processes_get_the_rewards_of_one_process(
    two_processes: list[dict[str, Any]], case: int
) -> None:
    batch, group = CASES[case].values()
    runs = [process["runs"][case] for process in two_processes]
    steps = list(zip(runs[0]["calls"], runs[1]["calls"], strict=True))
    assert len(steps) == 2
    for zero, one in steps:
        assert zero["prompts"][-1] == one["prompts"][0]  # the group that lies across the processes
        prompts, completions = zero["prompts"] + one["prompts"], zero["completions"] + one["completions"]
        rewards = zero["rewards"] + one["rewards"]
        assert len(zero["rewards"]) == len(one["rewards"]) == batch
        assert rewards == pytest.approx(payoffs_by_hand(prompts, completions))
        assert rewards == pytest.approx(grpo_reward(GAME.judge())(prompts, completions))
    # Every comparison was made once, not once on each process; TRL logs the mean over those that made any.
    groups = 2 * batch // group
    expected = groups * group * (group - 1) / 2 / min(groups, 2)
    assert [row["judge/comparisons"] for row in runs[0]["rows"]] == [expected] * 2
    assert [row["reward"] for row in runs[0]["rows"]] == pytest.approx([0.5, 0.5])


def test_a_judge_that_fails_on_one_process_stops_all(two_processes: list[dict[str, Any]]) -> None:
    zero, one = (process["told"] for process in two_processes)
    assert one == ["the server is down"] * 2  # within the group, and against an answer of the training set
    assert len(zero) == 2
    assert all("failed on process 1" in error and "the server is down" in error for error in zero)
