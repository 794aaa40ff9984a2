"""The prompts that come with the package, written for it: everyday help and eight categories of safety."""

import json
from importlib.resources import files
from typing import Literal

from datasets import Dataset

from magnetar.errors import DataError, unknown_name

__all__ = ["DEMO_DATASET", "DEMO_SPLITS", "demo_prompts"]

DEMO_DATASET = "demo"
"""The name that stands for the embedded prompts wherever a dataset is asked for."""

DEMO_SPLITS = ("train", "test")
"""The split to train on, and the part kept for evaluation, stratified by category."""


def demo_prompts(split: Literal["train", "test"]) -> Dataset:
    """Return one split of the embedded prompts.

    Args:
        split: ``"train"``, or ``"test"`` for the part that training never sees: a third of each category.

    Returns:
        Columns ``prompt`` (one user turn each) and ``category``.

    Raises:
        DataError: There is no such split.
    """
    if split not in DEMO_SPLITS:
        raise DataError(unknown_name("split of the demo prompts", split, DEMO_SPLITS))
    text = files("magnetar.data").joinpath("demo_prompts.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    chosen = [row for row in rows if row["split"] == split]
    return Dataset.from_list([{"prompt": row["prompt"], "category": row["category"]} for row in chosen])
