from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from word_tokenizer import WORDS, make_tokenizer

from magnetar.data.prompts import (
    limit_prompt_length,
    prompt_text,
    render_prompts,
    split_dialogue_text,
    split_rounds,
)
from magnetar.errors import DataError, ModelError


def words(ids: list[int]) -> list[str]:
    return [WORDS[i] for i in ids]


CHAT = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "world"},
    {"role": "user", "content": "you"},
]


def test_chat_ends_with_the_header_of_the_answer_and_begins_once() -> None:
    (ids,) = render_prompts([CHAT], make_tokenizer())
    expected = ["<s>", "<user>", "hello", "<assistant>", "world", "<user>", "you", "<assistant>"]
    assert words(ids) == expected


def test_text_is_tokenised_as_it_is_with_one_beginning_and_no_end() -> None:
    for tokenizer in (make_tokenizer(), make_tokenizer(closes=True)):
        assert [words(ids) for ids in render_prompts(["hello", "<s> hello"], tokenizer)] == [["<s>", "hello"]] * 2


def test_text_keeps_an_end_that_it_wrote_itself() -> None:
    (ids,) = render_prompts(["hello </s>"], make_tokenizer())
    assert words(ids) == ["<s>", "hello", "</s>"]


def test_text_needs_no_chat_template_but_turns_do() -> None:
    plain = make_tokenizer(chat=False)
    assert len(render_prompts(["hello"], plain)) == 1
    with pytest.raises(ModelError, match=r"no chat template; use an instruction-tuned model.*plain text"):
        render_prompts([CHAT], plain)


def test_turn_that_the_template_refuses_names_the_prompt() -> None:
    system = [{"role": "system", "content": "hello"}, {"role": "user", "content": "you"}]
    with pytest.raises(DataError, match=r"prompt 1: .*no system turns.*system, user"):
        render_prompts([CHAT, system], make_tokenizer())


def test_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(DataError, match="prompt 0 has no tokens"):
        render_prompts([" "], make_tokenizer(bos=False))


TEXTS = Dataset.from_dict({"prompt": ["hello", "how are you", "hello world", "hello hello hello hello"]})


def test_long_prompts_are_dropped_and_counted() -> None:
    kept, dropped = limit_prompt_length(TEXTS, make_tokenizer(), 3, "drop")
    assert dropped == 2
    assert kept["prompt"][:] == ["hello", "hello world"]


def test_a_prompt_of_exactly_the_limit_stays() -> None:
    kept, dropped = limit_prompt_length(TEXTS, make_tokenizer(), 5, "error")
    assert (len(kept), dropped) == (4, 0)


def test_long_prompt_is_refused_with_row_length_limit_and_fix() -> None:
    with pytest.raises(DataError, match=r"row 1 .* 4 tokens, the limit is 3 \(2 of 4 .*raise the limit to 5"):
        limit_prompt_length(TEXTS, make_tokenizer(), 3, "error")


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(DataError, match="all 4 prompts are longer than 1 tokens, the shortest has 2"):
        limit_prompt_length(TEXTS, make_tokenizer(), 1, "drop")


def test_limit_arguments_are_checked() -> None:
    with pytest.raises(DataError, match="max_prompt_tokens=0"):
        limit_prompt_length(TEXTS, make_tokenizer(), 0, "drop")
    with pytest.raises(DataError, match="on_long='cut'"):
        limit_prompt_length(TEXTS, make_tokenizer(), 9, "cut")  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "rounds"), [(10, 3), (7, 7), (5, 1), (1999, 4)])
def test_rounds_are_disjoint_even_and_complete(rows: int, rounds: int) -> None:
    parts = split_rounds(rows, rounds, seed=0)
    sizes = [len(part) for part in parts]
    assert len(parts) == rounds
    assert max(sizes) - min(sizes) <= 1
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(rows))


def test_rounds_depend_on_the_seed_alone() -> None:
    first, again, other = (np.concatenate(split_rounds(50, 3, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_more_rounds_than_rows_is_refused() -> None:
    with pytest.raises(DataError, match="num_rounds=4 exceeds the 3 prompts"):
        split_rounds(3, 4, seed=0)
    with pytest.raises(DataError, match="num_rounds=0"):
        split_rounds(3, 0, seed=0)


def test_prompt_text_for_people() -> None:
    assert prompt_text("hello") == "hello"
    assert prompt_text(CHAT[:1]) == "hello"
    assert prompt_text(CHAT) == "user: hello\nassistant: world\nuser: you"


def test_conversational_dataset_goes_through_the_limit(tmp_path: Path) -> None:
    table = Dataset.from_list([{"prompt": CHAT}, {"prompt": CHAT[:1]}])
    kept, dropped = limit_prompt_length(table, make_tokenizer(), 4, "drop")
    assert dropped == 1
    assert kept[0]["prompt"] == CHAT[:1]


def test_a_prompt_that_begins_the_answer_is_left_open() -> None:
    tokenizer = make_tokenizer()
    turns = [{"role": "user", "content": "hello world"}, {"role": "assistant", "content": "how are"}]
    closed = render_prompts([turns[:1]], tokenizer)[0]
    found = render_prompts([turns], tokenizer)[0]
    # The assistant's header, as at the end of any prompt, and then its words with nothing behind them.
    assert found == [*closed, *(tokenizer.convert_tokens_to_ids(word) for word in ("how", "are"))]


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("just a text", "just a text"),
        ("\n\nHuman: one\n\nAssistant: two\n\nHuman: three \n\nAssistant:", "three"),
        ("Human: one\n\nAssistant:", "one"),
        ("### Instruction:\nadd\n\n### Response:\n", "add"),
        ("<|im_start|>user\nsay<|im_end|>\n<|im_start|>assistant\n", "say"),
        ("a note\n\nAssistant: said something", "a note\n\nAssistant: said something"),
    ],
)
def test_the_last_request_of_a_dialogue_written_as_text(text: str, request_: str) -> None:
    before, request, after = split_dialogue_text(text)
    assert (before + request + after, request) == (text, request_)
