from collections import Counter

import pytest

from magnetar.data.demo import demo_prompts
from magnetar.data.prompts import load_prompts
from magnetar.errors import DataError


def test_two_splits_share_no_prompt_and_load_unchanged() -> None:
    train, test = demo_prompts("train"), demo_prompts("test")
    texts = [turns[0]["content"] for part in (train, test) for turns in part["prompt"]]
    assert len(set(texts)) == len(texts) == 150
    assert load_prompts("demo").to_list() == train.to_list()
    assert load_prompts("demo", "test").to_list() == test.to_list()


def test_a_third_of_each_category_is_kept_for_evaluation() -> None:
    train, test = Counter(demo_prompts("train")["category"]), Counter(demo_prompts("test")["category"])
    assert set(train) == set(test)
    assert len(train) == 9
    for category, count in test.items():
        assert abs(count - (count + train[category]) / 3) < 1, category


def test_prompts_are_short_single_user_turns() -> None:
    for turns in demo_prompts("train")["prompt"][:] + demo_prompts("test")["prompt"][:]:
        assert [turn["role"] for turn in turns] == ["user"]
        assert 5 <= len(turns[0]["content"].split()) <= 30


def test_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"unknown split of the demo prompts 'validation'.*test, train"):
        demo_prompts("validation")  # type: ignore[arg-type]
