"""Pairs as token ids: what a judge of the kind would read, cut as it would cut it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from magnetar.data.prompts import prompt_text
from magnetar.errors import DataError, JudgeError
from magnetar.judges.models.fitting import Question, fit_questions
from magnetar.judges.prompts import response_text
from magnetar.training.preference.config import PreferenceConfig
from magnetar.training.preference.reading import lay_out_pairs, pad_pairs
from magnetar.types import Prompt

__all__ = ["EncodedPairs", "PairCollator", "encode_pairs", "texts_of_pair"]


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs ready for the trainer.

    Attributes:
        dataset: Columns ``first_ids``, ``second_ids`` (for a pairwise model: both orders), ``win_prob``, ``length``
            (tokens of the longer one) and, for a cost model, ``first_safe`` and ``second_safe``.
        cut: Pairs of which an input was cut.
        dropped: Pairs left out because an input was too long.
    """

    dataset: Dataset
    cut: int
    dropped: int


def texts_of_pair(
    prompt: Prompt, first: str, second: str, tokenizer: PreTrainedTokenizerBase, template: str | None
) -> tuple[str, str, bool]:
    """The two texts that are read for a pair.

    Args:
        prompt: Text or chat turns.
        first: The first response.
        second: The second response.
        tokenizer: The model's.
        template: A pairwise model's; None for a kind that reads each response by itself.

    Returns:
        The texts, of each response with its prompt or of both orders, and whether the tokenizer adds special tokens.
    """
    if template is not None:
        shown = prompt_text(prompt)
        orders = ((first, second), (second, first))
        one, other = (template.format(prompt=shown, first=a, second=b) for a, b in orders)
        return one, other, True
    # A chat template writes the special tokens itself.
    one, other = (response_text(tokenizer, prompt, text) for text in (first, second))
    return one, other, not tokenizer.chat_template


def encode_pairs(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, config: PreferenceConfig) -> EncodedPairs:
    """Turn pairs into token ids.

    Args:
        dataset: As `magnetar.data.load_preferences` returns it.
        tokenizer: The model's.
        config: Kind, template, and what to do with long inputs.

    Returns:
        The pairs and what happened to long ones.

    Raises:
        DataError: An input is too long and ``on_long="error"``, or no pair is left.
    """
    read = _Reader(tokenizer, config.pair_template)
    columns: dict[str, list[Any]] = {"first_ids": [], "second_ids": [], "win_prob": [], "length": []}
    signs = ("first_safe", "second_safe") if config.kind == "cost" else ()
    columns |= {name: [] for name in signs}
    cut = dropped = longest = 0
    for index, values in enumerate(dataset):
        row = cast(Mapping[str, Any], values)
        question: Question = (row["prompt"], (row["first"], row["second"]))
        ids = read(question)
        length = max(map(len, ids))
        longest = max(longest, length)
        if length > config.max_length:
            if config.on_long == "error":
                raise DataError(
                    f"row {index} has an input of {length} tokens, the limit is {config.max_length}; raise "
                    "max_length, or set on_long='cut' or 'drop'"
                )
            if config.on_long == "drop":
                dropped += 1
                continue
            cut += 1
            ids = read(_fit(question, read, config.max_length, index))
        columns["first_ids"].append(ids[0])
        columns["second_ids"].append(ids[1])
        columns["win_prob"].append(float(row["win_prob"]))
        columns["length"].append(max(map(len, ids)))
        for name in signs:
            columns[name].append(bool(row[name]))
    if not columns["length"]:
        raise DataError(
            f"all {len(dataset)} pairs have inputs of more than max_length={config.max_length} tokens, up to "
            f"{longest}; raise it or set on_long='cut'"
        )
    return EncodedPairs(Dataset.from_dict(columns), cut, dropped)


@dataclass(frozen=True)
class _Reader:
    """The token ids of a pair's two inputs."""

    tokenizer: PreTrainedTokenizerBase
    template: str | None

    def __call__(self, question: Question) -> list[list[int]]:
        prompt, (first, second) = question
        one, other, add_special = texts_of_pair(prompt, first, second, self.tokenizer, self.template)
        encoded = self.tokenizer([one, other], add_special_tokens=add_special, verbose=False)["input_ids"]
        return [list(ids) for ids in cast(Sequence[list[int]], encoded)]


def _fit(question: Question, read: _Reader, limit: int, index: int) -> Question:
    """Cut a pair by the rule of the judges, and the prompt alike for both responses, so that it stays shared."""

    def longer_input(questions: Sequence[Question]) -> list[int]:
        return [max(map(len, read(one))) for one in questions]

    try:
        return fit_questions([question], longer_input, limit)[0]
    except JudgeError as error:
        raise DataError(
            f"row {index} does not fit into max_length={limit} tokens: the template alone leaves no room; raise it"
        ) from error


@dataclass(frozen=True)
class PairCollator:
    """N pairs as a batch: first all that belongs to the first responses, then to the second.

    ``labels`` holds the win probabilities, so that transformers counts pairs when it accumulates gradients.

    Attributes:
        pad_token_id: Fills the right of shorter rows; nothing looks at it.
        share_beginnings: Whether what both inputs of a pair have in common is read once (`lay_out_pairs`).
    """

    pad_token_id: int
    share_beginnings: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Lay out and stack."""
        ids = [row["first_ids"] for row in rows] + [row["second_ids"] for row in rows]
        lay_out = lay_out_pairs if self.share_beginnings else pad_pairs
        batch = lay_out(ids, self.pad_token_id)
        batch["labels"] = torch.tensor([row["win_prob"] for row in rows], dtype=torch.float32)
        for name in ("first_safe", "second_safe"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows])
        return batch
