"""Demonstrations: what is imitated, told from the columns; and parts that share no prompt."""

from typing import Any

import pytest
from datasets import Dataset

from magnetar.data import load_demonstrations
from magnetar.data.demonstrations import kind_of
from magnetar.data.parts import split_parts
from magnetar.errors import DataError

TURNS = [{"role": "user", "content": "ask"}]
ANSWER = [{"role": "assistant", "content": "say"}]


@pytest.mark.parametrize(
    ("row", "prompt", "completion"),
    [
        ({"prompt": "ask", "completion": "say"}, "ask", "say"),
        ({"prompt": TURNS, "completion": ANSWER}, TURNS, ANSWER),
        ({"messages": TURNS + ANSWER}, TURNS, ANSWER),
        ({"conversations": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "say"}]}, TURNS, ANSWER),
        ({"instruction": "ask", "input": "", "output": "say"}, TURNS, ANSWER),
        (
            {"instruction": "ask", "input": "this", "output": "say"},
            [{"role": "user", "content": "ask\n\nthis"}],
            ANSWER,
        ),
        ({"prompt": "ask", "chosen": "say", "rejected": "no"}, "ask", "say"),
        ({"prompt": "ask", "response_1": "no", "response_2": "say", "win_prob_1": 0.2}, "ask", "say"),
    ],
)
def test_every_form_gives_prompt_and_completion(row: dict[str, Any], prompt: Any, completion: Any) -> None:
    rows, dropped = load_demonstrations(Dataset.from_list([row]))
    assert (rows[0]["prompt"], rows[0]["completion"], dropped) == (prompt, completion, 0)


def test_pairs_without_a_winner_are_left_out_and_counted() -> None:
    pairs = [
        {"prompt": "a", "first": "x", "second": "y", "win_prob": 0.5},
        {"prompt": "a", "first": "x", "second": "x", "win_prob": 1.0},
        {"prompt": "b", "first": "x", "second": "y", "win_prob": 0.25},
    ]
    rows, dropped = load_demonstrations(Dataset.from_list(pairs))
    assert (rows["completion"][:], dropped) == (["y"], 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "x"}], "expected 'prompt' and 'completion'"),
        ([{"prompt": "a", "completion": " "}], "row 0: the response is empty"),
        ([{"messages": TURNS}], "row 0"),
        ([{"messages": ANSWER + TURNS}], "row 0: the prompt ends with the turn of 'assistant'"),
        ([{"prompt": "a", "first": "x", "second": "y", "win_prob": 0.5}], "no pair has a response that wins"),
    ],
)
def test_what_cannot_be_imitated_is_named(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_demonstrations(Dataset.from_list(rows))


def test_kinds_are_told_from_columns() -> None:
    assert kind_of(["prompt", "chosen", "rejected"]) == "pairs"
    assert kind_of(["prompt", "response_0", "response_1", "safer_response_id"]) == "pairs"
    assert kind_of(["messages"]) == kind_of(["prompt", "completion"]) == "demonstrations"
    assert kind_of(["prompt", "category"]) == "prompts"


def prompts(count: int = 60) -> Dataset:
    return Dataset.from_list([{"prompt": f"p{i // 2}", "category": "abc"[i // 2 % 3]} for i in range(count)])


def test_parts_share_no_prompt_and_lose_no_row() -> None:
    parts = split_parts(prompts(), {"rest": "rest", "held": 10, "half": 0.5, "both": ["held", "half"]}, seed=1)
    sets = {name: set(part["prompt"]) for name, part in parts.items()}
    assert not sets["held"] & sets["half"] and not sets["rest"] & sets["both"]
    assert len(parts["held"]) == 10 and len(parts["half"]) == 26  # half of 50, and the twin of the last one
    assert sum(len(parts[name]) for name in ("rest", "held", "half")) == 60
    assert len(parts["both"]) == 36
    # The order of the rows decides nothing.
    again = split_parts(prompts().select(range(59, -1, -1)), {"held": 10, "half": 0.5, "rest": "rest"}, seed=1)
    assert set(again["held"]["prompt"]) == sets["held"]
    other = split_parts(prompts(), {"held": 10, "rest": "rest"}, seed=2)
    assert set(other["held"]["prompt"]) != sets["held"]


def test_stratified_parts_take_the_same_of_each_category() -> None:
    part = split_parts(prompts(), {"held": 12, "rest": "rest"}, seed=0, stratified=True)["held"]
    assert {c: part["category"][:].count(c) for c in "abc"} == {"a": 4, "b": 4, "c": 4}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "is empty"),
        ({"a": 0}, "expected rows"),
        ({"a": "all"}, "expected rows, a share, 'rest'"),
        ({"a": "rest", "b": "rest"}, "has taken all that is left"),
        ({"a": "rest", "b": ["c"]}, "made of c"),
        ({"a": 60, "b": 1}, "keeps back all"),
    ],
)
def test_impossible_parts_are_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_parts(prompts(), parts, seed=0)
