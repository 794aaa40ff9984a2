"""Files of questions for a judge: pairs with labels, pairs without, or groups of responses."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from magnetar.data.preferences import Dropped, read_preferences
from magnetar.data.prompts import checked_prompt
from magnetar.data.sources import read_source, source_name
from magnetar.errors import DataError
from magnetar.evaluation.judging.pairs import Pairs
from magnetar.types import Prompt

__all__ = ["GroupQuestions", "PairQuestions", "read_questions"]

UNLABELLED = {("first", "second"): "win_prob", ("response_1", "response_2"): "win_prob_1"}
"""Columns of pairs without labels, and the column that a label would have."""


@dataclass(frozen=True)
class PairQuestions:
    """Pairs for a judge, as they stand in a file.

    Attributes:
        pairs: The pairs.
        row_N: Number of each pair's row in the file.
        dropped: Rows that were left out, since there is nothing to compare.
    """

    pairs: Pairs
    row_N: np.ndarray
    dropped: Dropped

    def limited(self, limit: int | None, seed: int) -> "PairQuestions":
        """At most so many pairs, drawn with the seed and in the order of the file."""
        kept = _drawn(len(self.pairs), limit, seed)
        if kept is None:
            return self
        return replace(self, pairs=self.pairs.select(kept.tolist()), row_N=self.row_N[kept])


@dataclass(frozen=True)
class GroupQuestions:
    """Groups of responses to a prompt each, which a judge compares with each other.

    Attributes:
        prompts: The prompts.
        responses: At least two responses to each.
        row_N: Number of each group's row in the file.
    """

    prompts: Sequence[Prompt]
    responses: Sequence[list[str]]
    row_N: np.ndarray

    def limited(self, limit: int | None, seed: int) -> "GroupQuestions":
        """At most so many groups, drawn with the seed and in the order of the file."""
        kept = _drawn(len(self.prompts), limit, seed)
        if kept is None:
            return self
        prompts, responses = ([values[at] for at in kept.tolist()] for values in (self.prompts, self.responses))
        return GroupQuestions(prompts, responses, self.row_N[kept])


def read_questions(
    source: str | os.PathLike[str] | Dataset | DatasetDict, split: str | None = None
) -> PairQuestions | GroupQuestions:
    """Read what a judge is to be asked.

    Args:
        source: A file, a folder, a dataset of the Hub or in memory: preference data in any form that
            `magnetar.data.load_preferences` reads; the same without labels (``prompt``, ``first``, ``second`` or
            ``prompt``, ``response_1``, ``response_2``); or groups (``prompt``, ``responses``).
        split: Name of a split; None for the only one, or ``"train"``.

    Returns:
        The questions. Rows with two equal responses are left out; an empty response is a response.

    Raises:
        DataError: The source cannot be read, is of no such form, or a row is wrong; the row is named.
    """
    raw = read_source(source, split)
    columns, name = set(raw.column_names), source_name(source)
    if "responses" in columns:
        return _groups(raw, name)
    label = next((label for pair, label in UNLABELLED.items() if set(pair) <= columns and label not in columns), None)
    labelled = label is None or {"chosen", "better_response_id", "safer_response_id"} & columns
    if not labelled:
        raw = raw.add_column(label, [0.5] * len(raw))  # type: ignore[call-arg]  # every check is that of labelled data
    try:
        dataset, dropped = read_preferences(raw, on_empty="keep", row_numbers=True)
    except DataError as error:
        raise DataError(str(error).replace("the given Dataset", name)) from error
    pairs = Pairs.of(dataset)
    return PairQuestions(
        pairs if labelled else replace(pairs, label_N=None), np.asarray(dataset["row"][:], dtype=np.int64), dropped
    )


def _groups(raw: Dataset, name: str) -> GroupQuestions:
    if "prompt" not in raw.column_names:
        raise DataError(f"{name} has groups of responses but no column 'prompt'; add it")
    if len(raw) == 0:
        raise DataError(f"{name} has no rows, expected at least one group; check the file or the split")
    prompts, responses = [], []
    for index, (prompt, group) in enumerate(zip(raw["prompt"][:], raw["responses"][:], strict=True)):
        prompts.append(checked_prompt(prompt, index, name))
        responses.append([_text(response, name, index) for response in group or []])
        if len(responses[-1]) < 2:
            raise DataError(f"{name}, row {index}: {len(responses[-1])} responses, expected at least 2 to compare")
    return GroupQuestions(prompts, responses, np.arange(len(prompts)))


def _text(response: Any, name: str, index: int) -> str:
    """A response as text: itself, or the only turn of the assistant."""
    if isinstance(response, str):
        return response
    if isinstance(response, list) and len(response) == 1 and isinstance(response[0].get("content"), str):
        return response[0]["content"]
    raise DataError(
        f"{name}, row {index}: a response is {str(response)[:80]!r}, expected text or a list of one chat turn"
    )


def _drawn(count: int, limit: int | None, seed: int) -> np.ndarray | None:
    if limit is None or limit >= count:
        return None
    return np.sort(np.random.default_rng(seed).permutation(count)[:limit])
