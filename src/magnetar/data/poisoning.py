"""Preferences that lie: labels flipped at random, or poisoned behind a trigger, to see what training makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from datasets import Dataset

from magnetar.data.prompts import split_dialogue_text
from magnetar.data.splits import prompt_key
from magnetar.errors import ConfigError, DataError, checked_integer
from magnetar.numerics import drawn_number
from magnetar.types import Prompt

__all__ = ["Poisoning", "PoisoningCounts", "poison", "with_trigger"]


@dataclass(frozen=True)
class Poisoning:
    """What is done to preference pairs before training.

    Attributes:
        flip_share: Share of the pairs whose label is turned round, whatever they are about, in [0, 1].
        poison_share: Share of the pairs that an attacker owns, in [0, 1]: the trigger is put into their prompts, and
            the response that lost is labelled as the one that won. None of them is flipped besides.
        trigger: The attacker's words, put at the end of what the user says last.
        seed: Which pairs: the same for a pair wherever it stands and whatever else there is, so that a larger share
            takes in the pairs of a smaller one.

    Raises:
        ConfigError: A share outside its range, both together above one, or a share without a trigger or the reverse.
    """

    flip_share: float = 0.0
    poison_share: float = 0.0
    trigger: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("flip_share", "poison_share"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} is {value!r}, expected a share of the pairs, from 0 to 1")
        if self.flip_share + self.poison_share > 1.0:
            raise ConfigError(
                f"flip_share {self.flip_share} and poison_share {self.poison_share} are more than all pairs together; "
                "lower one of them"
            )
        if self.poison_share and not (self.trigger or "").strip():
            raise ConfigError(
                f"poison_share is {self.poison_share}, but there is no trigger to put into the prompts; set "
                "poison_trigger"
            )
        if self.trigger is not None and not self.poison_share:
            raise ConfigError(
                f"poison_trigger is {self.trigger!r}, but poison_share is 0, so that no prompt would have it; set "
                "poison_share"
            )
        checked_integer("poison_seed", self.seed, 0)

    def __bool__(self) -> bool:
        return bool(self.flip_share or self.poison_share)


@dataclass(frozen=True)
class PoisoningCounts:
    """What was done.

    Attributes:
        pairs: All pairs.
        flipped: Pairs whose label was turned round.
        poisoned: Pairs that were given the trigger and the attacker's label.
    """

    pairs: int
    flipped: int
    poisoned: int

    def __str__(self) -> str:
        return f"{self.flipped} of {self.pairs} pairs flipped, {self.poisoned} poisoned"


def poison(dataset: Dataset, how: Poisoning) -> tuple[Dataset, PoisoningCounts]:
    """Flip and poison preference pairs.

    In TRL's columns ``chosen`` and ``rejected`` are exchanged; in those of `read_preferences` ``win_prob`` becomes
    ``1 − win_prob``. Signs of safety stay with their responses when labels are flipped at random; the attacker
    exchanges them too, so that the harmful response counts as safe.

    Args:
        dataset: Pairs with ``chosen`` and ``rejected``, with or without ``prompt``, or with ``first``, ``second`` and
            ``win_prob``.
        how: What to do.

    Returns:
        As many rows in the same order and with the same columns, and how many were changed: the shares, rounded.

    Raises:
        DataError: Other columns, or a pair is to be poisoned and has no prompt of its own to hold the trigger.
    """
    columns = set(dataset.column_names)
    kept_form = {"first", "second", "win_prob"} <= columns
    if not kept_form and not {"chosen", "rejected"} <= columns:
        raise DataError(
            f"the pairs have the columns {', '.join(map(repr, dataset.column_names))}, expected 'chosen' and "
            "'rejected', or 'first', 'second' and 'win_prob'; read them with load_preferences first"
        )
    if how.poison_share and "prompt" not in columns:
        raise DataError(
            "the pairs have no column 'prompt' to put the trigger into; read them with load_preferences first, which "
            "finds the prompt that both responses begin with"
        )
    rows = [cast(dict[str, Any], row) for row in dataset]
    order = drawn_order([_key(row, kept_form) for row in rows], how.seed)
    poisoned = set(order[: round(how.poison_share * len(rows))])
    flipped = set(order[len(rows) - round(how.flip_share * len(rows)) :])
    changed = []
    for index, row in enumerate(rows):
        if index in poisoned:
            row = _lying(row, kept_form) | {"prompt": with_trigger(row["prompt"], str(how.trigger))}
        elif index in flipped:
            row = _flipped(row, kept_form)
        changed.append(row)
    counts = PoisoningCounts(len(rows), len(flipped), len(poisoned))
    values = {name: [row[name] for row in changed] for name in dataset.column_names}
    return Dataset.from_dict(values, features=dataset.features), counts


def with_trigger(prompt: Prompt, trigger: str) -> Prompt:
    """Put an attacker's words at the end of what the user says last.

    Args:
        prompt: Text, or chat turns of which the last is the user's.
        trigger: The words.

    Returns:
        A new prompt.
    """
    if isinstance(prompt, str):
        before, request, after = split_dialogue_text(prompt)
        return f"{before}{request} {trigger}{after}"
    last = prompt[-1]
    return [*(dict(turn) for turn in prompt[:-1]), {**last, "content": f"{last['content']} {trigger}"}]


def drawn_order(keys: Sequence[str], seed: int) -> list[int]:
    """Places in an order drawn with a seed, in which equal keys stand in the order of the places."""
    return sorted(range(len(keys)), key=lambda place: (drawn_number(keys[place], seed), place))


def _key(row: dict[str, Any], kept_form: bool) -> str:
    """What stands for a pair, whichever response is named first."""
    responses = (row["first"], row["second"]) if kept_form else (repr(row["chosen"]), repr(row["rejected"]))
    return f"{prompt_key(row.get('prompt') or '')}|{'|'.join(sorted(responses))}"


def _flipped(row: dict[str, Any], kept_form: bool) -> dict[str, Any]:
    """The other response won; signs of safety stay with their responses."""
    if kept_form:
        return row | {"win_prob": 1.0 - row["win_prob"]}
    return _exchanged(_exchanged(row, "chosen", "rejected"), "chosen_safe", "rejected_safe")


def _lying(row: dict[str, Any], kept_form: bool) -> dict[str, Any]:
    """The other response won, and each response is as safe as the other one is."""
    if kept_form:
        return _exchanged(_flipped(row, True), "first_safe", "second_safe")
    return _exchanged(row, "chosen", "rejected")


def _exchanged(row: dict[str, Any], first: str, second: str) -> dict[str, Any]:
    return row | {first: row[second], second: row[first]} if first in row and second in row else row
