"""Demonstrations for supervised fine-tuning: a prompt, and the one response to imitate."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from datasets import Dataset, DatasetDict

from magnetar.data.preferences import read_preferences
from magnetar.data.prompts import checked_prompt, prompt_form
from magnetar.data.sources import read_source, source_name
from magnetar.errors import DataError

__all__ = ["kind_of", "load_demonstrations"]

EXPECTED = (
    "'prompt' and 'completion'; 'messages' or 'conversations' (a dialogue that ends with the assistant's turn); "
    "'instruction' and 'output', with or without 'input'; or preference pairs, of which the better response is imitated"
)
PREFERRED = ("chosen", "response_1", "first")  # a column that tells preference pairs
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def load_demonstrations(
    source: str | os.PathLike[str] | Dataset | DatasetDict, split: str | None = None, *, label: str | None = None
) -> tuple[Dataset, int]:
    """Read demonstrations in any of the usual formats.

    Args:
        source: As for `magnetar.data.load_prompts`.
        split: Name of a split, also with a slice; None for the only one, or ``"train"``.
        label: Of Safe-RLHF's pairs, which label says what is better: "better" or "safer".

    Returns:
        Columns ``prompt`` and ``completion``, both text or both chat turns, of which the last is the assistant's; and
        how many rows were left out: pairs with equal responses, and pairs that neither response wins.

    Raises:
        DataError: The source cannot be read or is of no known format; or a row has an empty response or prompt, or
            mixes text and chat turns; the row is named.
    """
    name = source_name(source)
    raw = read_source(source, split)
    columns = set(raw.column_names)
    if len(raw) == 0:
        raise DataError(f"{name} has no rows, expected at least one demonstration; check the file or the split")
    if kind_of(raw.column_names) == "pairs":
        return _better_side(raw, label, name)
    if label is not None:
        raise DataError(
            f"label={label!r} chooses between labels of preference pairs, but {name} has none; leave it out"
        )
    read = _reader(columns, name)
    rows = [_checked(*read(cast(Mapping[str, Any], row)), index, name) for index, row in enumerate(raw)]
    first = rows[0]["prompt"]
    for index, row in enumerate(rows):
        if type(row["prompt"]) is not type(first):
            raise DataError(
                f"{name}, row {index}: the prompt is {prompt_form(row['prompt'])}, but that of row 0 is "
                f"{prompt_form(first)}; use one form for the whole dataset"
            )
    return Dataset.from_list(rows), 0


def kind_of(columns: Sequence[str]) -> Literal["pairs", "demonstrations", "prompts"]:
    """What a dataset holds, by its columns."""
    if "completion" not in columns and any(column in columns for column in PREFERRED):
        return "pairs"
    found = {"completion", "messages", "conversations", "output"} & set(columns)
    return "demonstrations" if found else "prompts"


def _better_side(raw: Dataset, label: str | None, name: str) -> tuple[Dataset, int]:
    """Of each pair the response that wins."""
    pairs, dropped = read_preferences(raw, label=cast(Any, label))
    rows = []
    for prompt, first, second, win_prob in zip(
        pairs["prompt"], pairs["first"], pairs["second"], pairs["win_prob"], strict=True
    ):
        if win_prob != 0.5:
            rows.append(_demonstration(prompt, first if win_prob > 0.5 else second))
    if not rows:
        raise DataError(f"{name}: no pair has a response that wins (win_prob other than 1/2); check the labels")
    return Dataset.from_list(rows), len(pairs) - len(rows) + dropped.equal + dropped.empty


def _reader(columns: set[str], name: str) -> Callable[[Mapping[str, Any]], tuple[Any, Any]]:
    """How a row of these columns is taken apart into prompt and response."""
    if {"prompt", "completion"} <= columns:
        return lambda row: (row["prompt"], row["completion"])
    for column in ("messages", "conversations"):
        if column in columns:
            return lambda row, column=column: _last_turn(row[column])
    if {"instruction", "output"} <= columns:
        return _instruction
    raise DataError(f"{name} has the columns {', '.join(sorted(columns))}, expected {EXPECTED}")


def _last_turn(turns: Any) -> tuple[Any, Any]:
    """Everything before the last turn, and that turn."""
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        return turns, None
    plain = [
        {"role": SPEAKERS.get(str(turn["from"]), str(turn["from"])), "content": turn.get("value")}
        if "from" in turn
        else {"role": turn.get("role"), "content": turn.get("content")}
        for turn in turns
    ]
    return plain[:-1], plain[-1:]


def _instruction(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """An instruction with its input, as one turn of the user."""
    beside = row.get("input")
    asked = row["instruction"] if not beside else f"{row['instruction']}\n\n{beside}"
    return [{"role": "user", "content": asked}], [{"role": "assistant", "content": row["output"]}]


def _checked(prompt: Any, completion: Any, index: int, name: str) -> dict[str, Any]:
    """A demonstration in one of the two forms, or an error that names the row."""
    where = f"{name}, row {index}"
    prompt = checked_prompt(prompt, index, name)
    if isinstance(completion, list) and len(completion) == 1 and isinstance(completion[0], Mapping):
        role, completion = completion[0].get("role"), completion[0].get("content")
        if role != "assistant":
            raise DataError(f"{where}: the last turn is that of {role!r}, expected 'assistant': it is what is imitated")
    if not isinstance(completion, str):
        raise DataError(
            f"{where}: the completion is {type(completion).__name__}, expected text or one turn of the assistant"
        )
    if not completion.strip():
        raise DataError(f"{where}: the response is empty; remove the row or give it a text")
    return _demonstration(prompt, completion)


def _demonstration(prompt: Any, response: str) -> dict[str, Any]:
    answer: Any = response if isinstance(prompt, str) else [{"role": "assistant", "content": response}]
    return {"prompt": prompt, "completion": answer}
