"""Demonstrations that are too long: token ids and labels computed by hand, on a tokenizer whose tokens are letters."""

import string
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from magnetar.errors import CheckpointError, ConfigError, DataError
from magnetar.training.checkpoints import write_mark
from magnetar.training.dataset_runs import check_resume
from magnetar.training.sft import SupervisedConfig, SupervisedTrainer
from magnetar.training.sft.trainer import SUPERVISED_RUN

SPECIAL = ["<pad>", "<s>", "<u>", "<a>", "</s>"]
LETTERS = string.ascii_lowercase + " :\n"
TEMPLATE = (
    "{% for m in messages %}{{ '<u>' if m['role'] == 'user' else '<a>' }}{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
LIMIT = 16


def make_tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({sign: at for at, sign in enumerate([*SPECIAL, *LETTERS])}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    core.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )


def ids_of(*parts: str) -> list[int]:
    """Token ids, without the tokenizer: a letter is a token, and so is a special one."""
    signs = [*SPECIAL, *LETTERS]
    return [signs.index(sign) for part in parts for sign in ([part] if part in SPECIAL else part)]


def row(before: list[str], response: list[str]) -> tuple[list[int], list[int]]:
    """Token ids and labels: the loss is that of the response."""
    context, said = ids_of(*before), ids_of(*response)
    return context + said, [-100] * len(context) + said


def trained_on(rows: list[dict[str, Any]], folder: Path, **settings: Any) -> Any:
    torch.manual_seed(0)
    vocabulary = len(SPECIAL) + len(LETTERS)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    args = SupervisedConfig(
        **{"output_dir": str(folder), "use_cpu": True, "report_to": "none", "disable_tqdm": True},
        **{"max_length": LIMIT, **settings},
    )
    return SupervisedTrainer(LlamaForCausalLM(config), args, Dataset.from_list(rows), None, make_tokenizer())


def rows_of(trainer: Any) -> list[tuple[list[int], list[int]]]:
    return [(one["input_ids"], one["labels"]) for one in trainer.train_dataset]


TEXTS = [
    {"prompt": "what is it: ", "completion": "abc"},  # 12 + 3 + the end: fits exactly
    {"prompt": "and what is it: ", "completion": "abcd"},  # 11 letters of the prompt fit
    {"prompt": "so: ", "completion": "abcdefghijklmn"},  # one letter of the prompt fits
    {"prompt": "so: ", "completion": "abcdefghijklmno"},  # the response fills all
]


def test_a_long_prompt_loses_its_beginning_and_the_response_stays_whole(tmp_path: Path) -> None:
    trainer = trained_on(TEXTS, tmp_path, on_long="cut_prompt")
    assert rows_of(trainer) == [
        row(["what is it: "], ["abc", "</s>"]),
        row(["what is it: "[1:]], ["abcd", "</s>"]),
        row([" "], ["abcdefghijklmn", "</s>"]),
    ]
    assert (trainer.cut_prompts, trainer.left_out) == (2, 1)
    told = trainer.run_settings()
    assert (told["cut_prompts"], told["left_out"], told["settings"]["on_long"]) == (2, 1, "cut_prompt")


def test_by_default_responses_are_cut_as_trl_does(tmp_path: Path) -> None:
    trainer = trained_on([*TEXTS, {"prompt": "is it longer than that", "completion": "a"}], tmp_path)
    whole = [
        row(["what is it: "], ["abc", "</s>"]),
        row(["and what is it: "], ["abcd", "</s>"]),
        row(["so: "], ["abcdefghijklmn", "</s>"]),
        row(["so: "], ["abcdefghijklmno", "</s>"]),
    ]
    kept = [(ids[:LIMIT], labels[:LIMIT]) for ids, labels in whole]
    assert rows_of(trainer) == [one for one in kept if set(one[1]) != {-100}]
    assert (trainer.full, trainer.left_out) == (3, 2)


def test_what_is_long_can_be_left_out(tmp_path: Path) -> None:
    trainer = trained_on(TEXTS, tmp_path, on_long="drop")
    assert rows_of(trainer) == [row(["what is it: "], ["abc", "</s>"])]
    assert (trainer.cut_prompts, trainer.left_out) == (0, 3)


def test_of_a_long_dialogue_the_last_turns_are_kept_within_their_template(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "what"},
    ]
    asked = [{"prompt": turns, "completion": [{"role": "assistant", "content": "x" * size}]} for size in (1, 4, 9, 12)]
    trainer = trained_on(asked, tmp_path, on_long="cut_prompt")
    assert rows_of(trainer) == [
        # A turn has two special tokens beside its letters, and sixteen tokens are to be used. What comes first goes
        # first, and a turn of the assistant is no beginning.
        row(["<u>", "o", "</s>", "<a>", "hi", "</s>", "<u>", "what", "</s>", "<a>"], ["x", "</s>"]),
        row(["<u>", "what", "</s>", "<a>"], ["xxxx", "</s>"]),
        row(["<u>", "hat", "</s>", "<a>"], ["x" * 9, "</s>"]),
    ]
    assert trainer.left_out == 1


def test_a_checkpoint_from_before_there_was_a_choice_is_of_the_default(tmp_path: Path) -> None:
    settings = SupervisedConfig(output_dir=str(tmp_path), use_cpu=True, max_length=LIMIT)
    known = {name: value for name, value in settings.fingerprint().items() if name != "on_long"}
    write_mark(tmp_path, {"step": 1, "supervised": known})
    check_resume(SUPERVISED_RUN, tmp_path, settings)
    settings.on_long = "cut_prompt"
    with pytest.raises(CheckpointError, match="on_long='cut_response', this run has on_long='cut_prompt'"):
        check_resume(SUPERVISED_RUN, tmp_path, settings)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"on_long": "cut_promt"}, "did you mean 'cut_prompt'"),
    "packing": ({"on_long": "cut_prompt", "packing": True}, "with packing"),
    "template": ({"on_long": "drop", "chat_template_path": "some/model"}, "with chat_template_path"),
    "no limit": ({"on_long": "drop", "max_length": None}, "max_length is null"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_would_have_no_effect_is_refused(case: str, tmp_path: Path) -> None:
    settings, message = BAD[case]
    with pytest.raises(ConfigError, match=message):
        SupervisedConfig(output_dir=str(tmp_path), use_cpu=True, **settings)


def test_demonstrations_of_which_none_fits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 1 demonstrations fits within max_length=16 tokens"):
        trained_on(TEXTS[3:], tmp_path, on_long="cut_prompt")
