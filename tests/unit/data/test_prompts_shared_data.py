"""The real data sets that the project measures on, read as they are."""

import gzip
import itertools
import json
import os
from pathlib import Path

import pytest
from datasets import Dataset

from magnetar.data.demo import demo_prompts
from magnetar.data.preferences import read_preferences
from magnetar.data.prompts import load_prompts
from magnetar.data.splits import split_preferences

SHARED = Path(os.environ.get("MAGNETAR_SHARED_DATA") or Path(__file__).parents[4] / "shared" / "data")


def shared(name: str) -> Path:
    if not (SHARED / name).is_file():
        pytest.skip(f"{name} is not in {SHARED}; set MAGNETAR_SHARED_DATA to the folder that holds it")
    return SHARED / name


def test_hh_harmless_pairs_give_their_prompts() -> None:
    found = load_prompts(shared("hh_harmless_pairs.jsonl.gz"), deduplicate=False)
    assert found.column_names == ["prompt"]
    assert len(found) == 1999
    assert all(turns[-1]["role"] == "user" for turns in found["prompt"])


def test_hh_harmless_pairs_with_an_implicit_prompt_give_the_same() -> None:
    """Whole dialogues in chosen and rejected, as the set is on the Hub: TRL's extraction finds the prompts again."""
    explicit = load_prompts(shared("hh_harmless_pairs.jsonl.gz"), deduplicate=False)
    with gzip.open(shared("hh_harmless_pairs.jsonl.gz"), "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in itertools.islice(file, 200)]
    rows = [{answer: row["prompt"] + row[answer] for answer in ("chosen", "rejected")} for row in raw]
    found = load_prompts(Dataset.from_list(rows), deduplicate=False)
    assert found.to_list() == explicit.select(range(200)).to_list()


def test_safety_prompts_have_the_eight_categories_that_the_demo_uses() -> None:
    found = load_prompts(shared("safety_prompts.jsonl.gz"))
    categories = set(found["category"])
    assert len(categories) == 8
    assert set(demo_prompts("test")["category"]) == categories | {"everyday help"}


def test_demo_prompts_are_not_copied_from_the_real_data() -> None:
    embedded = {turns[0]["content"] for turns in load_prompts("demo", "train+test")["prompt"]}
    assert len(embedded) == 150
    for name in ("safety_prompts.jsonl.gz", "hh_harmless_pairs.jsonl.gz", "alpaca_eval_gpt4_pairs.jsonl.gz"):
        assert not embedded & {turns[-1]["content"] for turns in load_prompts(shared(name))["prompt"]}


def test_hh_harmless_pairs_are_preferences_with_one_turn_each() -> None:
    found, dropped = read_preferences(shared("hh_harmless_pairs.jsonl.gz"))
    assert (len(found), dropped.equal, dropped.empty) == (1999, 0, 0)
    assert set(found["win_prob"]) == {1.0}


def test_alpaca_eval_pairs_are_soft_preferences_whose_prompts_stay_together() -> None:
    found, dropped = read_preferences(shared("alpaca_eval_gpt4_pairs.jsonl.gz"))
    with gzip.open(shared("alpaca_eval_gpt4_pairs.jsonl.gz"), "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines]
    different = [row for row in raw if row["response_1"] != row["response_2"]]
    assert len(found) == len(different) == len(raw) - dropped.equal
    assert found["win_prob"][:] == [row["win_prob_1"] for row in different]
    train, held_out = split_preferences(found, 0.1, 0)
    prompts = [{json.dumps(prompt) for prompt in part["prompt"]} for part in (train, held_out)]
    assert not prompts[0] & prompts[1]
    assert len(train) + len(held_out) == len(found)
