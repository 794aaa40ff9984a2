"""Prompts: read and checked, rendered to token ids, limited in length, split over rounds of self-play."""

import json
import logging
import os
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from magnetar.data.sources import read_source, source_name
from magnetar.errors import DataError, ModelError
from magnetar.types import Prompt

__all__ = [
    "limit_prompt_length",
    "load_prompts",
    "prompt_text",
    "render_prompts",
    "split_dialogue_text",
    "split_rounds",
]

_USUAL_NAMES = ("instruction", "question", "query", "input", "text", "messages", "prompts", "conversations")

_ASSISTANT_MARKS = (
    "\nAssistant:",
    "\nassistant:",
    "### Assistant:",
    "### Response:",
    "<|assistant|>",
    "<|im_start|>assistant\n",
    "[/INST]",
)
_USER_MARKS = (
    "\nHuman:",
    "\nUser:",
    "\nuser:",
    "### Human:",
    "### Instruction:",
    "<|user|>",
    "<|im_start|>user",
    "[INST]",
)
_TURN_ENDS = ("<|im_end|>", "<|end|>", "<|eot_id|>", "</s>")

_log = logging.getLogger(__name__)


def load_prompts(
    source: str | os.PathLike[str] | Dataset | DatasetDict,
    split: str | None = None,
    *,
    prompt_column: str = "prompt",
    config: str | None = None,
    deduplicate: bool = True,
) -> Dataset:
    """Read prompts in any of TRL's formats: prompt-only, or preferences with an explicit or an implicit prompt.

    An implicit prompt is what the dialogues ``chosen`` and ``rejected`` share at their beginning.

    Args:
        source: ``"demo"`` for the embedded prompts; a file (.json, .jsonl, .csv, .parquet, also compressed; .txt with
            one prompt a line); a folder written by ``save_to_disk`` or holding such files; an id on the Hugging Face
            Hub; or a `datasets.Dataset` or `DatasetDict`.
        split: Name of a split, also with a slice (``"train[:10%]"``); None for the only one, or ``"train"``.
        prompt_column: Column that holds the prompts.
        config: Configuration of a dataset on the Hub that has several.
        deduplicate: Whether to keep only the first of equal prompts.

    Returns:
        Columns ``prompt`` (text, or chat turns of ``role`` and ``content`` of which the last is the user's) and, where
        the source has it, ``category`` (text); nothing else.

    Raises:
        DataError: The source is missing, unreachable, unreadable or empty, has no such split or no prompts, or a row
            cannot be answered because its prompt is empty or ends with the assistant's turn.
    """
    name = source_name(source)
    raw = read_source(source, split, config=config)
    if len(raw) == 0:
        raise DataError(f"{name} has no rows, expected at least one prompt; check the file or the split")
    values = _prompt_values(raw, prompt_column, name)
    prompts = [checked_prompt(value, row, name) for row, value in enumerate(values)]
    kind = type(prompts[0])
    for row, prompt in enumerate(prompts):
        if type(prompt) is not kind:
            raise DataError(
                f"{name}, row {row}: the prompt is {prompt_form(prompt)}, but row 0 is {prompt_form(prompts[0])}; "
                "use one form for the whole dataset"
            )
    columns: dict[str, list[Any]] = {"prompt": prompts}
    if "category" in raw.column_names:
        columns["category"] = prompt_categories(raw, name)
    if deduplicate:
        # dict keeps the first row of each key: setdefault never replaces it.
        first: dict[str, int] = {}
        for row, prompt in enumerate(prompts):
            first.setdefault(json.dumps(prompt), row)
        if len(first) < len(prompts):
            _log.info("%s: dropped %d repeated prompts of %d", name, len(prompts) - len(first), len(prompts))
        columns = {key: [column[row] for row in first.values()] for key, column in columns.items()}
    return Dataset.from_dict(columns)


def render_prompts(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of prompts up to where the response begins.

    Chat turns go through the tokenizer's chat template, with the header of the assistant's turn at the end, or with
    that turn left open where the last one is the assistant's; text is tokenised as it is. Neither gets a second
    beginning-of-sequence token, nor an end-of-sequence token.

    Args:
        prompts: Texts, or lists of chat turns.
        tokenizer: The policy's.

    Returns:
        One list of ids for each prompt, without padding, never empty.

    Raises:
        ModelError: Chat turns were given and the tokenizer has no chat template.
        DataError: The template refuses a prompt, or a prompt has no tokens; the row is named.
    """
    if tokenizer.chat_template is None and any(not isinstance(prompt, str) for prompt in prompts):
        raise ModelError(
            "the prompts are chat turns, but the tokenizer has no chat template; use an instruction-tuned model, set "
            "tokenizer.chat_template, or give the prompts as plain text"
        )
    rendered = []
    for row, prompt in enumerate(prompts):
        ids = _text_ids(prompt, tokenizer) if isinstance(prompt, str) else _chat_ids(prompt, tokenizer, row)
        if not ids:
            raise DataError(f"prompt {row} has no tokens: {prompt!r}; remove it or give it a text")
        rendered.append(ids)
    return rendered


def limit_prompt_length(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int, on_long: Literal["drop", "error"]
) -> tuple[Dataset, int]:
    """Drop or refuse prompts that are too long once rendered; none is ever cut, which would change its meaning.

    Args:
        dataset: As `load_prompts` returns it.
        tokenizer: The policy's.
        max_prompt_tokens: Longest prompt allowed, tokens, chat template included, at least 1.
        on_long: ``"drop"`` or ``"error"``.

    Returns:
        The prompts within the limit, and how many were dropped.

    Raises:
        DataError: The limit is below 1, a prompt is too long and ``on_long="error"``, or no prompt is short enough.
    """
    if max_prompt_tokens < 1:
        raise DataError(f"max_prompt_tokens={max_prompt_tokens}, expected at least 1")
    if on_long not in ("drop", "error"):
        raise DataError(f"on_long={on_long!r}, expected 'drop' or 'error'")
    lengths = [len(ids) for ids in render_prompts(dataset["prompt"][:], tokenizer)]
    keep = [row for row, length in enumerate(lengths) if length <= max_prompt_tokens]
    num_long = len(lengths) - len(keep)
    if num_long and on_long == "error":
        row = next(row for row, length in enumerate(lengths) if length > max_prompt_tokens)
        raise DataError(
            f"row {row} has a prompt of {lengths[row]} tokens, the limit is {max_prompt_tokens} ({num_long} of "
            f"{len(lengths)} prompts are longer); raise the limit to {max(lengths)}, shorten them, or drop them with "
            "on_long='drop'"
        )
    if not keep:
        raise DataError(
            f"all {len(lengths)} prompts are longer than {max_prompt_tokens} tokens, the shortest has "
            f"{min(lengths, default=0)}; raise the limit"
        )
    return (dataset.select(keep) if num_long else dataset), num_long


def split_rounds(num_rows: int, num_rounds: int, seed: int) -> list[np.ndarray]:
    """Deal rows evenly and at random over rounds of self-play.

    Args:
        num_rows: Number of prompts.
        num_rounds: Number of rounds, from 1 to ``num_rows``.
        seed: Seed of the shuffle.

    Returns:
        Row indices of each round: disjoint, together all rows, sizes differing by at most one.

    Raises:
        DataError: There are more rounds than rows, or fewer than one round.

    Source: arXiv:2410.16714, experiments: prompts split equally over rounds, the magnet moved in between.
    """
    if num_rounds < 1:
        raise DataError(f"num_rounds={num_rounds}, expected at least 1")
    if num_rounds > num_rows:
        raise DataError(
            f"num_rounds={num_rounds} exceeds the {num_rows} prompts; use at most {num_rows} rounds, or more prompts"
        )
    return np.array_split(np.random.default_rng(seed).permutation(num_rows), num_rounds)


def prompt_text(prompt: Prompt) -> str:
    """Put a prompt in a form for people: a lone user turn as its text, a longer dialogue with its speakers.

    Args:
        prompt: Text, or chat turns.

    Returns:
        The text; for dialogues one ``role: content`` paragraph for each turn.
    """
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def split_dialogue_text(text: str) -> tuple[str, str, str]:
    """Find what the user says last in a prompt that is text.

    Args:
        text: A text, or a dialogue written as text, with marks such as "Human:" and "Assistant:", that ends with the
            assistant's mark.

    Returns:
        What stands before it, what the user says last, and what stands behind; joined they are the text. All of a text
        that is no such dialogue is what the user says.
    """
    end = next((text.rfind(mark) for mark in _ASSISTANT_MARKS if text.rstrip().endswith(mark.rstrip())), -1)
    if end < 0:
        return "", text, ""
    starts = [at + len(mark) for mark in _USER_MARKS if (at := text.rfind(mark, 0, end)) >= 0]
    begins = [len(mark) - 1 for mark in _USER_MARKS if not starts and text.startswith(mark[1:])]
    start = max([*starts, *begins], default=0)
    start += len(text[start:end]) - len(text[start:end].lstrip())
    for mark in ("", *_TURN_ENDS):
        end = start + len(text[start:end].rstrip().removesuffix(mark).rstrip())
    return text[:start], text[start:end], text[end:]


def _prompt_values(raw: Dataset, prompt_column: str, name: str) -> list[Any]:
    """Find the prompts in a dataset: in their column, or at the beginning of both answers to them."""
    pairs = {"chosen", "rejected"} <= set(raw.column_names)
    if prompt_column in raw.column_names and not (pairs and prompt_column == "prompt"):
        return raw[prompt_column][:]
    if pairs and prompt_column == "prompt":
        kept = [c for c in ("prompt", "chosen", "rejected") if c in raw.column_names]
        return [_prompt_of_pair(row, index, name) for index, row in enumerate(raw.select_columns(kept))]
    usual = next((c for c in _USUAL_NAMES if c in raw.column_names), None)
    example = f" (here perhaps prompt_column={usual!r})" if usual else ""
    raise DataError(
        f"{name} has no column {prompt_column!r}; it has {', '.join(map(repr, raw.column_names))}. Name the prompts' "
        f"column with prompt_column=…{example}, or give preference data with 'chosen' and 'rejected'"
    )


def _prompt_of_pair(row: Any, index: int, name: str) -> Any:
    """Prompt of one preference pair, explicit or implicit, by TRL's rules."""
    from trl.data_utils import maybe_extract_prompt  # its import takes seconds, and only preference data needs it

    if not row["chosen"] or not row["rejected"]:
        if row.get("prompt"):
            return row["prompt"]
        raise DataError(
            f"{name}, row {index}: 'chosen' or 'rejected' is empty and there is no prompt of its own; remove the row"
        )
    found = cast(dict[str, Any], maybe_extract_prompt(row))
    if row.get("prompt"):
        return found["prompt"]
    return before_responses(found["prompt"], found["chosen"], found["rejected"])[0]


def before_responses(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Give back to both responses the words that they begin with alike.

    A prompt that is found as what two texts share would end with them, and the same dialogue would have another prompt
    in each of its pairs. Where a mark of the assistant's turn says where the responses begin, they begin there.

    Args:
        prompt: What both texts share; chat turns are left as they are.
        chosen: The rest of the first.
        rejected: The rest of the second.

    Returns:
        Prompt, first and second response.
    """
    if not isinstance(prompt, str):
        return prompt, chosen, rejected
    ends = [(at + len(mark)) for mark in _ASSISTANT_MARKS if (at := prompt.rfind(mark)) >= 0]
    end = max(ends, default=len(prompt))
    shared = prompt[end:]
    if any(mark in shared for mark in _USER_MARKS):  # the texts part in the middle of what the user says
        return prompt, chosen, rejected
    return prompt[:end], shared + chosen, shared + rejected


def checked_prompt(value: Any, row: int, name: str) -> Prompt:
    """Check that a prompt can be answered; keep only the role and the content of each turn."""
    where = f"{name}, row {row}"
    if isinstance(value, str):
        if not value.strip():
            raise DataError(f"{where}: the prompt is empty; remove the row or give it a text")
        return value
    if not value:
        raise DataError(f"{where}: the prompt is {'null' if value is None else 'empty'}; remove the row or give it one")
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise DataError(
            f"{where}: the prompt is {type(value).__name__} {str(value)[:80]!r}, expected text or a list of chat turns "
            "like {'role': 'user', 'content': '…'}"
        )
    turns = []
    for number, turn in enumerate(value):
        if not isinstance(turn.get("role"), str) or not isinstance(turn.get("content"), str):
            raise DataError(
                f"{where}: turn {number} has {', '.join(map(repr, turn))}, expected the texts 'role' and 'content'; "
                "trl.maybe_convert_to_chatml converts 'from' and 'value'"
            )
        turns.append({"role": turn["role"], "content": turn["content"]})
    last = turns[-1]
    if last["role"] != "user":
        raise DataError(
            f"{where}: the prompt ends with the turn of {last['role']!r}, expected 'user'; drop that turn, so that "
            "there is something to answer"
        )
    if not last["content"].strip():
        raise DataError(f"{where}: the user's last turn is empty; remove the row or give it a text")
    return turns


def prompt_categories(raw: Dataset, name: str) -> list[str]:
    """The category column as text."""
    feature = raw.features["category"]
    categories = []
    for row, value in enumerate(raw["category"][:]):
        if value is None:
            raise DataError(
                f"{name}, row {row}: the category is null; fill it in, or remove the column to go without categories"
            )
        categories.append(feature.int2str(value) if isinstance(feature, ClassLabel) else str(value))
    return categories


def prompt_form(prompt: Prompt) -> str:
    """Say which of TRL's two forms a prompt has."""
    return "text" if isinstance(prompt, str) else "a list of chat turns"


def _text_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a text that the model is to continue."""
    begins = isinstance(tokenizer.bos_token, str) and text.startswith(tokenizer.bos_token)
    ids = list(cast(list[int], tokenizer(text, add_special_tokens=not begins)["input_ids"]))
    # Some tokenizers close every text; the response would begin after its own end.
    ended = isinstance(tokenizer.eos_token, str) and not text.endswith(tokenizer.eos_token)
    return ids[:-1] if ended and ids and ids[-1] == tokenizer.eos_token_id else ids


def _chat_ids(turns: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, row: int) -> list[int]:
    """Token ids of a dialogue with the assistant's header at the end, or with its last turn left open."""
    from jinja2 import TemplateError

    begun = turns[-1]["role"] == "assistant"
    try:
        # Templates write the special tokens themselves: apply_chat_template adds none.
        ids = tokenizer.apply_chat_template(
            turns, add_generation_prompt=not begun, continue_final_message=begun, tokenize=True, return_dict=False
        )
    except (TemplateError, ValueError) as error:
        if not begun and not isinstance(error, TemplateError):
            raise
        raise DataError(
            f"prompt {row}: the tokenizer's chat template refuses it ({error}); its roles are "
            f"{', '.join(turn['role'] for turn in turns)}: change or remove the turn that it does not take"
        ) from error
    return cast(list[int], ids)
