import gzip
import json
from pathlib import Path
from typing import Any

import datasets.config
import huggingface_hub.constants
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from magnetar.data.prompts import load_prompts
from magnetar.errors import DataError


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ROWS = [{"prompt": "hello", "category": "a"}, {"prompt": "how are you", "category": "b"}]
CHAT_ROWS = [{"prompt": [user("hello")]}, {"prompt": [user("hi"), assistant("yes?"), user("how are you")]}]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def write(path: Path) -> Path:
    """Write ROWS in the format that the name asks for."""
    table = Dataset.from_list(ROWS)
    if path.name.endswith(".parquet"):
        table.to_parquet(str(path))
    elif path.name.endswith(".csv"):
        path.write_text("prompt,category\nhello,a\nhow are you,b\n")
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(ROWS))
    else:
        write_jsonl(path, ROWS)
    return path


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.jsonl.gz", "d.csv", "d.parquet", "D.JSONL"])
def test_every_file_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    assert load_prompts(write(tmp_path / name)).to_list() == ROWS


def test_text_file_has_one_prompt_a_line_and_blank_lines_only_separate(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("hello\n\nhow are you\n   \n")
    assert load_prompts(tmp_path / "d.txt").to_list() == [{"prompt": "hello"}, {"prompt": "how are you"}]


def test_conversational_prompts_keep_all_turns_and_only_role_and_content(tmp_path: Path) -> None:
    rows = [{"prompt": [{**turn, "name": "x"} for turn in row["prompt"]], "extra": 1} for row in CHAT_ROWS]
    found = load_prompts(write_jsonl(tmp_path / "d.jsonl", rows))
    assert found.to_list() == CHAT_ROWS


def test_folder_saved_to_disk(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    parts = DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:1]))  # type: ignore[arg-type]
    parts.save_to_disk(str(tmp_path / "two"))
    assert load_prompts(tmp_path / "one").to_list() == ROWS
    assert load_prompts(str(tmp_path / "two"), "test").to_list() == ROWS[:1]


def test_folder_of_data_files_has_splits_by_file_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "test.jsonl", ROWS[1:])
    assert load_prompts(tmp_path).to_list() == ROWS
    assert load_prompts(tmp_path, "test").to_list() == ROWS[1:]


def test_dataset_in_memory_and_dataset_dict() -> None:
    assert load_prompts(Dataset.from_list(ROWS)).to_list() == ROWS
    found = load_prompts(DatasetDict(test=Dataset.from_list(ROWS)))  # type: ignore[arg-type]
    assert found.to_list() == ROWS


@pytest.mark.parametrize(("split", "expected"), [("train[:1]", ROWS[:1]), ("train[-1:]", ROWS[1:]), ("train", ROWS)])
def test_split_may_be_sliced(tmp_path: Path, split: str, expected: list[dict[str, str]]) -> None:
    assert load_prompts(write(tmp_path / "d.jsonl"), split).to_list() == expected


def test_explicit_prompt_of_preference_data() -> None:
    rows = [{"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]}]
    assert load_prompts(Dataset.from_list(rows)).to_list() == [{"prompt": [user("a")]}]


def test_implicit_prompt_is_what_both_dialogues_share() -> None:
    shared = [user("a"), assistant("b"), user("c")]
    rows = [{"chosen": [*shared, assistant("d")], "rejected": [*shared, assistant("e")], "category": "x"}]
    assert load_prompts(Dataset.from_list(rows)).to_list() == [{"prompt": shared, "category": "x"}]


def test_implicit_prompt_wins_over_a_text_copy_of_it() -> None:
    rows = [{"prompt": "a", "chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]}]
    assert load_prompts(Dataset.from_list(rows)).to_list() == [{"prompt": [user("a")]}]


def test_prompt_column_is_honoured_also_in_preference_data() -> None:
    rows = [{"question": "a", "chosen": "b", "rejected": "c"}]
    assert load_prompts(Dataset.from_list(rows), prompt_column="question").to_list() == [{"prompt": "a"}]


def test_deduplicate_keeps_the_first_row_of_equal_prompts_or_all() -> None:
    rows = [{"prompt": "a", "category": "x"}, {"prompt": "b", "category": "y"}, {"prompt": "a", "category": "z"}]
    assert load_prompts(Dataset.from_list(rows)).to_list() == rows[:2]
    assert load_prompts(Dataset.from_list(rows), deduplicate=False).to_list() == rows


def test_class_label_becomes_its_name() -> None:
    features = Features({"prompt": Value("string"), "category": ClassLabel(names=["safe", "rude"])})
    table = Dataset.from_dict({"prompt": ["a", "b"], "category": [1, 0]}, features=features)
    assert load_prompts(table)["category"][:] == ["rude", "safe"]


def test_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path / "prompts.jsonl")
    with pytest.raises(DataError, match=r"did you mean '.*prompts\.jsonl'"):
        load_prompts(tmp_path / "promts.jsonl")


def test_missing_folder_of_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder '.*nowhere' does not exist"):
        load_prompts(tmp_path / "nowhere" / "d.jsonl")


def test_unreachable_hub_is_said_and_the_embedded_set_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"cannot be reached.*use 'demo'"):
        load_prompts("nobody/nothing")


def test_unknown_split_names_those_that_exist() -> None:
    with pytest.raises(DataError, match=r"unknown split 'tset'.*did you mean 'test'.*test, train"):
        load_prompts("demo", "tset")


def test_no_train_split_asks_for_one_of_those_that_exist() -> None:
    parts = DatasetDict(a=Dataset.from_list(ROWS), b=Dataset.from_list(ROWS))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="splits a, b and none is called 'train'"):
        load_prompts(parts)


def test_split_of_a_dataset_in_memory_is_refused() -> None:
    with pytest.raises(DataError, match="a Dataset, which has no splits"):
        load_prompts(Dataset.from_list(ROWS), "train")


def test_streaming_dataset_is_refused() -> None:
    with pytest.raises(DataError, match="streaming=False"):
        load_prompts(Dataset.from_list(ROWS).to_iterable_dataset())  # type: ignore[arg-type]


def test_no_prompt_column_names_the_columns_and_the_fix() -> None:
    with pytest.raises(DataError, match=r"no column 'prompt'; it has 'id', 'question'.*prompt_column='question'"):
        load_prompts(Dataset.from_list([{"id": 1, "question": "a"}]))


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.txt"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(DataError, match="is empty, expected at least one row"):
        load_prompts(tmp_path / name)


def test_dataset_without_rows_and_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows, expected at least one prompt"):
        load_prompts(Dataset.from_dict({"prompt": []}))
    with pytest.raises(DataError, match=r"folder .* is empty"):
        load_prompts(tmp_path)
    (tmp_path / "d.txt").write_text("\n \n")
    with pytest.raises(DataError, match="no rows"):
        load_prompts(tmp_path / "d.txt")


def test_unreadable_and_unknown_formats(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "a"\nnot json at all')
    with pytest.raises(DataError, match=r"cannot read .*check that its content fits its format"):
        load_prompts(tmp_path / "d.jsonl")
    (tmp_path / "d.docx").write_text("hello")
    with pytest.raises(DataError, match=r"cannot tell the format of .*\.jsonl"):
        load_prompts(tmp_path / "d.docx")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "row 1: the prompt is null"),
        ("", "row 1: the prompt is empty"),
        ("  \n", "row 1: the prompt is empty"),
    ],
)
def test_bad_text_prompt_names_its_row(bad: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_prompts(Dataset.from_list([{"prompt": "a"}, {"prompt": bad}]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "row 1: the prompt is empty"),
        ([user("a"), assistant("b")], "row 1: the prompt ends with the turn of 'assistant', expected 'user'"),
        ([user(" ")], "row 1: the user's last turn is empty"),
        ([{"role": "user", "content": None}], r"row 1: turn 0 has .*expected the texts 'role' and 'content'"),
    ],
)
def test_bad_chat_prompt_names_its_row(bad: list[dict[str, str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_prompts(Dataset.from_list([{"prompt": [user("a")]}, {"prompt": bad}]))


def test_other_turn_and_prompt_types_are_refused() -> None:
    with pytest.raises(DataError, match="maybe_convert_to_chatml"):
        load_prompts(Dataset.from_list([{"prompt": [{"from": "human", "value": "a"}]}]))
    with pytest.raises(DataError, match="row 0: the prompt is int '3', expected text or a list of chat turns"):
        load_prompts(Dataset.from_list([{"prompt": 3}]))


def test_text_and_chat_prompts_do_not_mix(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [{"prompt": [user("a")]}, {"prompt": "b"}])
    with pytest.raises(DataError, match="row 1: the prompt is text, but row 0 is a list of chat turns"):
        load_prompts(path)


def test_pair_without_answers_or_prompt_names_its_row() -> None:
    table = Dataset.from_list([{"chosen": "ab", "rejected": "ac"}, {"chosen": None, "rejected": "ac"}])
    with pytest.raises(DataError, match="row 1: 'chosen' or 'rejected' is empty"):
        load_prompts(table)


def test_null_category_names_its_row() -> None:
    with pytest.raises(DataError, match="row 1: the category is null"):
        load_prompts(Dataset.from_list([{"prompt": "a", "category": "x"}, {"prompt": "b", "category": None}]))
