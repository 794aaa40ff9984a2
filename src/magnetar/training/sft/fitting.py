"""Demonstrations that are longer than a model is to read: what of them is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from magnetar.data.prompts import prompt_text
from magnetar.judges.models.fitting import cut_prompt
from magnetar.types import Prompt

__all__ = ["ON_LONG", "FittedDemonstrations", "fit_demonstrations"]

ON_LONG = ("cut_response", "cut_prompt", "drop")


@dataclass(frozen=True)
class FittedDemonstrations:
    """Demonstrations within a limit.

    Attributes:
        dataset: Those that are kept, in their order.
        cut: Of how many the prompt lost its beginning.
        dropped: How many were left out.
    """

    dataset: Dataset
    cut: int
    dropped: int


def fit_demonstrations(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, on_long: str
) -> FittedDemonstrations:
    """Make demonstrations fit without touching a response.

    A prompt is cut as those of judges are: it keeps its last c characters, of chat turns from a turn of the user on,
    for the largest c with which prompt and response fit. A demonstration is left out if no character of its prompt
    would be left.

    Args:
        dataset: As `magnetar.data.load_demonstrations` returns it.
        tokenizer: The model's.
        max_length: Most tokens of prompt and response, chat template and end of sequence included.
        on_long: "cut_prompt", or "drop" to leave out whatever is longer.

    Returns:
        The demonstrations, and how many were cut and left out.
    """
    rows: list[dict[str, Any]] = []
    cut = 0
    for values in dataset:
        row = dict(cast(Mapping[str, Any], values))
        if _tokens(row["prompt"], row["completion"], tokenizer) <= max_length:
            rows.append(row)
            continue
        shorter = _fitting_prompt(row, tokenizer, max_length) if on_long == "cut_prompt" else None
        if shorter is not None:
            rows.append({**row, "prompt": shorter})
            cut += 1
    kept = Dataset.from_list(rows) if rows else dataset.select([])
    return FittedDemonstrations(kept, cut, len(dataset) - len(rows))


def _fitting_prompt(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Prompt | None:
    """The longest end of a prompt with which its response fits; None if there is none."""
    fits, fails = 0, len(prompt_text(row["prompt"]))
    while fails - fits > 1:
        characters = (fits + fails) // 2
        if _tokens(cut_prompt(row["prompt"], characters), row["completion"], tokenizer) <= max_length:
            fits = characters
        else:
            fails = characters
    return cut_prompt(row["prompt"], fits) if fits else None


def _tokens(prompt: Prompt, completion: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of prompt and response as TRL's trainer reads them."""
    if not isinstance(prompt, str):
        turns = cast(Any, [*prompt, *completion])
        return len(cast(Any, tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True))["input_ids"])
    end = str(tokenizer.eos_token)
    text = prompt + (completion if completion.endswith(end) else completion + end)
    return len(cast(Any, tokenizer(text, verbose=False))["input_ids"])
