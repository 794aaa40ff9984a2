"""Pairs kept back such that no prompt is on both sides."""

import hashlib
import json
import math
from collections.abc import Sequence

from datasets import Dataset

from magnetar.errors import DataError
from magnetar.types import Prompt

__all__ = ["prompt_key", "refuse_trained_prompts", "split_preferences"]


def split_preferences(dataset: Dataset, holdout: float, seed: int) -> tuple[Dataset, Dataset]:
    """Keep rows back such that no prompt is on both sides.

    Prompts are ordered by a digest of the seed and their text, and kept back one after another until there are enough
    rows. So neither the order of the rows nor the machine matters, and more data moves few prompts.

    Args:
        dataset: As `load_preferences` returns it.
        holdout: How many rows to keep back if at least 1, their share if below 1; at least one row is kept back, and
            all rows of the last prompt, so that it may be a few more.
        seed: Of the digest.

    Returns:
        Training rows and held-out rows, each in the order of the dataset.

    Raises:
        DataError: ``holdout`` is not positive, or leaves no prompt to train on.
    """
    if not (math.isfinite(holdout) and holdout > 0):
        raise DataError(f"holdout={holdout}, expected a number of rows (1 or more) or a share of them (below 1)")
    rows: dict[str, list[int]] = {}
    for index, prompt in enumerate(dataset["prompt"]):
        rows.setdefault(prompt_key(prompt, seed), []).append(index)
    wanted = max(1, round(holdout * len(dataset)) if holdout < 1 else round(holdout))
    held_out: list[int] = []
    for key in sorted(rows):
        if len(held_out) >= wanted:
            break
        held_out += rows[key]
    if len(held_out) >= len(dataset):
        raise DataError(
            f"holdout={holdout} keeps back all {len(dataset)} rows, which have {len(rows)} different prompts; lower "
            "it, or give held-out pairs of their own"
        )
    taken = set(held_out)
    return dataset.select([i for i in range(len(dataset)) if i not in taken]), dataset.select(sorted(held_out))


def refuse_trained_prompts(held_out: Sequence[Prompt], trained: Sequence[Prompt]) -> None:
    """Refuse held-out prompts that are trained on: what is measured on them says little.

    Args:
        held_out: Prompts to evaluate on.
        trained: Prompts to train on.

    Raises:
        DataError: Some are both.
    """
    known = {prompt_key(prompt) for prompt in trained}
    both = [prompt for prompt in held_out if prompt_key(prompt) in known]
    if both:
        raise DataError(
            f"{len(both)} of {len(held_out)} prompts of eval_prompts are in the dataset that is trained on, the first: "
            f"{str(both[0])[:80]!r}; take them out of one of the two"
        )


def prompt_key(prompt: Prompt, seed: int = 0) -> str:
    """Digest of a prompt: equal prompts have equal keys, under every order of rows."""
    text = json.dumps([seed, prompt], ensure_ascii=False, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
