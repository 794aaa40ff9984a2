"""Preference pairs in every format, what is refused with which words, and splits without a leak."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from magnetar.data import load_preferences, load_prompts, read_preferences, split_preferences
from magnetar.errors import DataError

ASK = [{"role": "user", "content": "Why is the sky blue?"}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def rows(**columns: Any) -> Dataset:
    return Dataset.from_dict(columns)


TEXT = {"prompt": "Why?", "first": "Because.", "second": "No idea.", "win_prob": 1.0}
CHAT = TEXT | {"prompt": ASK}
FORMATS = {
    "explicit text": (rows(prompt=["Why?"], chosen=["Because."], rejected=["No idea."]), TEXT),
    "explicit chat": (rows(prompt=[ASK], chosen=[said("Because.")], rejected=[said("No idea.")]), CHAT),
    "implicit chat": (rows(chosen=[ASK + said("Because.")], rejected=[ASK + said("No idea.")]), CHAT),
    "repeated chat": (rows(prompt=[ASK], chosen=[ASK + said("Because.")], rejected=[ASK + said("No idea.")]), CHAT),
    "chat prompt, text responses": (rows(prompt=[ASK], chosen=["Because."], rejected=["No idea."]), CHAT),
    # TRL leaves the space before the first difference to the responses.
    "implicit text": (
        rows(chosen=["Why? Because."], rejected=["Why? No idea."]),
        TEXT | {"first": " Because.", "second": " No idea."},
    ),
    "soft": (
        rows(prompt=[ASK], response_1=["Because."], response_2=["No idea."], win_prob_1=[0.25]),
        CHAT | {"win_prob": 0.25},
    ),
    "chosen with a soft label": (
        rows(prompt=["Why?"], chosen=["Because."], rejected=["No idea."], win_prob=[0.75]),
        TEXT | {"win_prob": 0.75},
    ),
    "own": (rows(prompt=["Why?"], first=["Because."], second=["No idea."], win_prob=[0]), TEXT | {"win_prob": 0.0}),
}
SAFE_RLHF = {
    "prompt": ["Why?", "How?"],
    "response_0": ["a", "c"],
    "response_1": ["b", "d"],
    "is_response_0_safe": [True, False],
    "is_response_1_safe": [False, False],
    "better_response_id": [1, 0],
    "safer_response_id": [0, 1],
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_columns(form: str) -> None:
    dataset, expected = FORMATS[form]
    assert load_preferences(dataset)[0] == expected
    assert list(load_preferences(dataset).column_names) == ["prompt", "first", "second", "win_prob"]


def test_prompts_of_pairs_are_those_that_load_prompts_finds() -> None:
    for form, (dataset, expected) in FORMATS.items():
        # TRL's own rule, which `load_prompts` follows, knows no text answers to chat turns.
        if "chosen" in dataset.column_names and form != "chat prompt, text responses":
            assert load_prompts(dataset)["prompt"][0] == expected["prompt"]


def test_what_is_read_can_be_written_and_read_again(tmp_path: Path) -> None:
    dataset = load_preferences(rows(**SAFE_RLHF), signs=True)
    dataset.to_parquet(tmp_path / "pairs.parquet")
    assert load_preferences(tmp_path / "pairs.parquet", signs=True)[:] == dataset[:]


def test_a_file_is_read_with_its_categories(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    row = {"prompt": ASK, "chosen": said("a"), "rejected": said("b"), "category": "sky"}
    file.write_text(json.dumps(row) + "\n")
    assert load_preferences(file)[0] == {
        "prompt": ASK,
        "first": "a",
        "second": "b",
        "win_prob": 1.0,
        "category": "sky",
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, [0.0, 1.0]), ({"signs": True}, [1.0, 0.0]), ({"signs": True, "label": "better"}, [0.0, 1.0])],
)
def test_cost_data_has_two_labels_and_signs(options: dict[str, Any], expected: list[float]) -> None:
    found = load_preferences(rows(**SAFE_RLHF), **options)
    assert found["win_prob"][:] == expected
    assert found["first_safe"][:] == [True, False]
    assert found["second_safe"][:] == [False, False]


def test_the_only_label_is_taken() -> None:
    columns = {k: v for k, v in SAFE_RLHF.items() if k != "better_response_id"}
    assert load_preferences(rows(**columns))["win_prob"][:] == [1.0, 0.0]


def test_equal_and_empty_responses_are_counted_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    data = rows(prompt=["p", "q", "r"], chosen=["a", "same", " "], rejected=["b", "same", "c"])
    kept, dropped = read_preferences(data, on_empty="drop")
    assert (len(kept), dropped.equal, dropped.empty) == (1, 1, 1)
    load_preferences(data, on_empty="drop")
    assert "dropped 1 with equal responses and 1 with an empty response of 3 rows" in caplog.text
    with pytest.raises(DataError, match=r"row 1: the two responses are equal.*on_equal='drop'"):
        load_preferences(data, on_equal="error")
    with pytest.raises(DataError, match=r"row 2: a response is empty.*on_empty='drop'"):
        load_preferences(data)
    with pytest.raises(DataError, match="no pair is left: 2 with equal responses"):
        load_preferences(rows(prompt=["p", "q"], chosen=["a", "b"], rejected=["a", "b"]))


def test_two_empty_responses_are_equal_and_no_pair_for_a_judge() -> None:
    data = rows(prompt=["p", "q"], chosen=["", ""], rejected=["", "b"])
    kept, dropped = read_preferences(data, on_empty="keep")
    assert (kept["second"][:], dropped.equal, dropped.empty) == (["b"], 1, 0)


def test_equal_dialogues_without_a_prompt_are_equal_rows() -> None:
    for both in (ASK + said("a"), "Why? Because."):
        other = ASK + said("b") if isinstance(both, list) else "Why? No."
        kept, dropped = read_preferences(rows(chosen=[both, both], rejected=[both, other]))
        assert (len(kept), dropped.equal) == (1, 1)
    assert len(load_preferences(rows(chosen=[ASK + said("a")], rejected=[ASK + said("a")]), on_equal="keep")) == 1
    with pytest.raises(DataError, match="nothing tells where the response begins"):
        load_preferences(rows(chosen=["Why? Because."], rejected=["Why? Because."]), on_equal="keep")


REFUSED: dict[str, tuple[Dataset, dict[str, Any], str]] = {
    "above one": (
        rows(prompt=["p", "p"], first=["a", "a"], second=["b", "b"], win_prob=[0.5, 55.0]),
        {},
        r"row 1: 'win_prob' is 55.0, expected a probability in \[0, 1\].*divide percentages by 100",
    ),
    "no number": (
        rows(prompt=["p"], response_1=["a"], response_2=["b"], win_prob_1=[None]),
        {},
        r"row 0: 'win_prob_1' is None, expected a probability",
    ),
    "not a number": (
        rows(prompt=["p"], response_1=["a"], response_2=["b"], win_prob_1=[float("nan")]),
        {},
        r"row 0: 'win_prob_1' is nan",
    ),
    "several turns": (
        rows(prompt=[ASK], chosen=[said("a") + ASK + said("c")], rejected=[said("b")]),
        {},
        r"row 0: 'chosen' has 3 turns behind the prompt \(assistant, user, assistant\), expected one of the assistant",
    ),
    "user's turn": (
        rows(prompt=[ASK], chosen=[ASK], rejected=[said("b")]),
        {},
        "'chosen' is a turn of 'user' with text, expected one of 'assistant'",
    ),
    "one form each": (
        rows(prompt=["p"], chosen=[said("a")], rejected=["b"]),
        {},
        "row 0: 'chosen' is a list of turns and 'rejected' is text; write both",
    ),
    "null": (rows(prompt=["p"], chosen=["a"], rejected=[None]), {}, "row 0: 'rejected' is null"),
    "null prompt": (
        rows(prompt=[None], first=["a"], second=["b"], win_prob=[1.0]),
        {},
        "row 0: the prompt is null",
    ),
    "no signs": (FORMATS["explicit chat"][0], {"signs": True}, "has no signs of safety.*'chosen_safe' and 'rejected"),
    "null sign": (
        rows(**(SAFE_RLHF | {"is_response_1_safe": [True, None]})),
        {"signs": True},
        r"row 1: 'is_response_1_safe' is None, expected true \(safe\) or false",
    ),
    "numbers as signs": (
        rows(**(SAFE_RLHF | {"is_response_1_safe": [-1, 1]})),
        {"signs": True},
        "row 0: 'is_response_1_safe' is -1, expected true",
    ),
    "bad id": (
        rows(**(SAFE_RLHF | {"better_response_id": [1, 2]})),
        {},
        "row 1: 'better_response_id' is 2, expected 0 or 1",
    ),
    "two formats": (
        rows(prompt=["p"], chosen=["a"], rejected=["b"], first=["a"], second=["b"], win_prob=[1.0]),
        {},
        "has the columns of two formats",
    ),
    "no preferences": (rows(prompt=["p"], answer=["a"]), {}, "no preference data; expected 'chosen' and 'rejected'"),
    "no label": (rows(prompt=["p"], first=["a"], second=["b"]), {}, "no preference data"),
    "no prompt": (rows(first=["a"], second=["b"], win_prob=[1.0]), {}, "has no column 'prompt'"),
    "nothing": (rows(prompt=[], chosen=[], rejected=[]), {}, "has no rows"),
    "label of another format": (FORMATS["explicit text"][0], {"label": "safer"}, "label='safer' chooses between"),
    "empty prompt": (rows(prompt=[" "], chosen=["a"], rejected=["b"]), {}, "row 0: the prompt is empty"),
}


def test_text_and_chat_turns_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    mixed = [{"prompt": prompt, "chosen": "a", "rejected": "b"} for prompt in ("Why?", ASK)]
    file.write_text("".join(json.dumps(row) + "\n" for row in mixed))
    with pytest.raises(DataError, match="row 1: the prompt is a list of chat turns, but that of row 0 is text"):
        load_preferences(file)


@pytest.mark.parametrize("case", REFUSED)
def test_bad_rows_are_named_with_their_fix(case: str) -> None:
    dataset, options, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        load_preferences(dataset, **options)


def pairs(num_rows: int, num_prompts: int) -> Dataset:
    return rows(
        prompt=[f"prompt {i % num_prompts}" for i in range(num_rows)],
        first=[f"a{i}" for i in range(num_rows)],
        second=[f"b{i}" for i in range(num_rows)],
        win_prob=[0.5] * num_rows,
    )


@pytest.mark.parametrize("holdout", [1, 20, 0.25])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_prompt_is_on_both_sides(holdout: float, seed: int) -> None:
    data = pairs(200, 40)
    train, held_out = split_preferences(data, holdout, seed)
    assert not set(train["prompt"]) & set(held_out["prompt"])
    assert sorted([*train["first"], *held_out["first"]]) == sorted(data["first"])
    wanted = holdout * 200 if holdout < 1 else holdout
    assert wanted <= len(held_out) < wanted + 5, "the last prompt comes with all of its five rows"


def test_a_split_depends_on_the_seed_and_not_on_the_order() -> None:
    data = pairs(200, 40)
    order = list(range(200))
    random.Random(0).shuffle(order)
    held_out = set(split_preferences(data, 30, 0)[1]["first"])
    assert set(split_preferences(data.select(order), 30, 0)[1]["first"]) == held_out
    assert set(split_preferences(data, 30, 1)[1]["first"]) != held_out


def test_a_holdout_must_leave_something() -> None:
    with pytest.raises(DataError, match="keeps back all 10 rows, which have 2 different prompts"):
        split_preferences(pairs(10, 2), 6, 0)
    for value in (0, -1, float("nan")):
        with pytest.raises(DataError, match="expected a number of rows"):
            split_preferences(pairs(10, 2), value, 0)


def test_responses_that_begin_alike_leave_no_words_in_the_prompt() -> None:
    dialogue = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: May I?\n\nAssistant:"
    rows = {
        "chosen": [dialogue + " I think so.", dialogue + " Yes."],
        "rejected": [dialogue + " I think not.", dialogue + " No."],
    }
    found = load_preferences(Dataset.from_dict(rows))
    assert set(found["prompt"]) == {dialogue}
    assert list(found["first"]) == [" I think so.", " Yes."] and list(found["second"]) == [" I think not.", " No."]
    assert set(load_prompts(Dataset.from_dict(rows))["prompt"]) == {dialogue}
    # Texts that part in the middle of a question have no responses that could be told from it.
    odd = {"chosen": [dialogue + " Yes.\n\nHuman: Why so?"], "rejected": [dialogue + " Yes.\n\nHuman: Why not?"]}
    assert load_prompts(Dataset.from_dict(odd))["prompt"][0].startswith(dialogue + " Yes.\n\nHuman:")
