"""Preference pairs: read from the formats in use and checked row by row."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from datasets import Dataset, DatasetDict, Features, Value

from magnetar.data.prompts import before_responses, checked_prompt, prompt_categories, prompt_form
from magnetar.data.sources import read_source, source_name
from magnetar.errors import DataError
from magnetar.types import Prompt

__all__ = ["Dropped", "load_preferences", "read_preferences"]

Action = Literal["drop", "error", "keep"]
Label = Literal["better", "safer"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Form:
    """The columns of one way to write preferences; the label is a probability, an id, or always the first."""

    first: str
    second: str
    win_prob: str | None = None
    winner: tuple[str, ...] = ()  # columns that hold 0 or 1: which response is better, which is safer
    safe: tuple[str, str] | None = None
    needs_label: bool = True

    def fits(self, columns: set[str]) -> bool:
        """Whether a dataset with these columns is written this way."""
        labels = {self.win_prob, *self.winner} & columns
        return {self.first, self.second} <= columns and bool(labels or not self.needs_label)


FORMS = (
    _Form("first", "second", "win_prob", safe=("first_safe", "second_safe")),
    _Form("chosen", "rejected", "win_prob", safe=("chosen_safe", "rejected_safe"), needs_label=False),
    _Form("response_1", "response_2", "win_prob_1", safe=("is_response_1_safe", "is_response_2_safe")),
    _Form(
        "response_0",
        "response_1",
        winner=("better_response_id", "safer_response_id"),
        safe=("is_response_0_safe", "is_response_1_safe"),
    ),
)
EXPECTED = (
    "'chosen' and 'rejected' (TRL), 'response_1', 'response_2' and 'win_prob_1' (soft labels), 'response_0', "
    "'response_1' and 'better_response_id' or 'safer_response_id' (Safe-RLHF), or 'first', 'second' and 'win_prob'"
)


@dataclass(frozen=True)
class Dropped:
    """How many rows were left out.

    Attributes:
        equal: Rows whose two responses are the same text.
        empty: Rows with an empty response.
    """

    equal: int = 0
    empty: int = 0

    def __bool__(self) -> bool:
        return bool(self.equal or self.empty)

    def __str__(self) -> str:
        parts = {"equal responses": self.equal, "an empty response": self.empty}
        return " and ".join(f"{count} with {what}" for what, count in parts.items() if count) or "none"


def load_preferences(
    source: str | os.PathLike[str] | Dataset | DatasetDict, split: str | None = None, **options: Any
) -> Dataset:
    """Read preference pairs; what is left out is said in the log.

    Args:
        source: As for `magnetar.data.load_prompts`.
        split: Name of a split, also with a slice; None for the only one, or ``"train"``.
        **options: Those of `read_preferences`.

    Returns:
        The rows; see `read_preferences`.

    Raises:
        DataError: As `read_preferences`.
    """
    dataset, dropped = read_preferences(source, split, **options)
    if dropped:
        _log.warning("%s: dropped %s of %d rows", source_name(source), dropped, len(dataset) + _total(dropped))
    return dataset


def read_preferences(
    source: str | os.PathLike[str] | Dataset | DatasetDict,
    split: str | None = None,
    *,
    config: str | None = None,
    label: Label | None = None,
    signs: bool = False,
    on_equal: Action = "drop",
    on_empty: Action = "error",
    row_numbers: bool = False,
) -> tuple[Dataset, Dropped]:
    """Read preference pairs in any of the usual formats, as text or as chat turns.

    The formats, told by their columns: TRL's ``chosen`` and ``rejected`` with a ``prompt`` or with the prompt at the
    beginning of both; ``response_1``, ``response_2`` and ``win_prob_1`` (soft labels); Safe-RLHF's ``response_0`` and
    ``response_1`` with ``better_response_id``, ``safer_response_id`` and safety signs; and what this function returns.

    Args:
        source: As for `magnetar.data.load_prompts`.
        split: Name of a split, also with a slice; None for the only one, or ``"train"``.
        config: Configuration of a dataset on the Hub that has several.
        label: Which of Safe-RLHF's two labels decides; None for "safer" with ``signs`` and "better" otherwise, or the
            only one that is there.
        signs: Whether the signs of safety are needed, as for a cost model.
        on_equal: What to do with a row whose responses are equal, which teaches nothing.
        on_empty: What to do with a row of which a response is empty; a judge may be asked about it ("keep").
        row_numbers: Whether to add a column ``row``, the number of each row in the source.

    Returns:
        The rows with the columns ``prompt`` (text or chat turns), ``first`` and ``second`` (texts), ``win_prob``
        (P(first beats second), in [0, 1]; 1 for chosen over rejected) and, where the source has them, ``first_safe``
        and ``second_safe`` (true or false) and ``category``; and how many rows were left out.

    Raises:
        DataError: The source cannot be read, is of no known or of two formats, mixes text and chat turns, or a row
            has a response that is empty or of several turns, a label outside [0, 1] or no sign where one is needed;
            the row is named.
    """
    for name, value in (("on_equal", on_equal), ("on_empty", on_empty)):
        if value not in ("drop", "error", "keep"):
            raise DataError(f"{name}={value!r}, expected 'drop', 'error' or 'keep'")
    name = source_name(source)
    raw = read_source(source, split, config=config)
    if len(raw) == 0:
        raise DataError(f"{name} has no rows, expected at least one preference pair; check the file or the split")
    form = _form_of(raw, name)
    labels = _label_column(raw, form, label, signs, name)
    reader = _RowReader(name, form, labels, _sign_columns(raw, form, signs, name), on_equal == "keep")
    categories = prompt_categories(raw, name) if "category" in raw.column_names else None
    kept: list[dict[str, Any]] = []
    counts = {"equal": 0, "empty": 0}
    for index, values in enumerate(raw):
        row = reader.read(cast(Mapping[str, Any], values), index)
        trouble = _trouble(row)
        action = on_equal if trouble == "equal" else on_empty
        if trouble is not None and action != "keep":
            _handle(trouble, action, name, index)
            counts[trouble] += 1
            continue
        if row_numbers:
            row["row"] = index
        if categories is not None:
            row["category"] = categories[index]
        kept.append(row)
    if not kept:
        raise DataError(f"{name}: no pair is left: {Dropped(**counts)}; check the data")
    return _dataset(kept), Dropped(**counts)


@dataclass(frozen=True)
class _RowReader:
    """Reads rows of one format, and holds all of them to one form of prompt."""

    name: str
    form: _Form
    label: str | None
    signs: tuple[str, str] | None
    keep_equal: bool
    _first_form: dict[str, Prompt] = field(default_factory=dict)

    def read(self, values: Mapping[str, Any], index: int) -> dict[str, Any]:
        where = f"{self.name}, row {index}"
        prompt, first, second = self._texts(values, where)
        prompt = checked_prompt(prompt, index, self.name)
        earlier = self._first_form.setdefault("prompt", prompt)
        if type(earlier) is not type(prompt):
            raise DataError(
                f"{where}: the prompt is {prompt_form(prompt)}, but that of row 0 is {prompt_form(earlier)}; use one "
                "form for the whole dataset"
            )
        row: dict[str, Any] = {
            "prompt": prompt,
            "first": _response(first, where, self.form.first),
            "second": _response(second, where, self.form.second),
            "win_prob": self._win_prob(values, where),
        }
        if self.signs is not None:
            row["first_safe"], row["second_safe"] = (_sign(values[column], where, column) for column in self.signs)
        return row

    def _texts(self, values: Mapping[str, Any], where: str) -> tuple[Any, Any, Any]:
        """Prompt and both responses; a prompt that both responses begin with is taken off them."""
        first, second = values[self.form.first], values[self.form.second]
        for column, response in ((self.form.first, first), (self.form.second, second)):
            if response is None:
                raise DataError(f"{where}: {column!r} is null; remove the row or give it a text")
        if type(first) is not type(second):
            raise DataError(
                f"{where}: {self.form.first!r} is {_kind(first)} and {self.form.second!r} is {_kind(second)}; write "
                "both as text or both as chat turns"
            )
        if values.get("prompt") is not None:
            return values["prompt"], *_without_prompt(values["prompt"], first, second)
        if self.form.first != "chosen":
            raise DataError(f"{where}: the prompt is null; remove the row or give it one")
        if first == second:  # nothing tells where the response begins; such a row can only be left out or refused
            if isinstance(first, str) and self.keep_equal:
                raise DataError(
                    f"{where}: 'chosen' and 'rejected' are equal and there is no 'prompt', so that nothing tells where "
                    "the response begins; add the column, or leave such rows out with on_equal='drop'"
                )
            return (first, "equal", "equal") if isinstance(first, str) else (first[:-1], first[-1:], second[-1:])
        if not first or not second:
            raise DataError(f"{where}: {self.form.first!r} or {self.form.second!r} is empty and there is no 'prompt'")
        from trl.data_utils import extract_prompt  # its import takes seconds, and only implicit prompts need it

        found: Any = extract_prompt({"chosen": first, "rejected": second})
        return before_responses(found["prompt"], found["chosen"], found["rejected"])

    def _win_prob(self, values: Mapping[str, Any], where: str) -> float:
        if self.label is None:
            return 1.0
        value = values[self.label]
        if self.label in self.form.winner:
            if value not in (0, 1) or isinstance(value, bool):
                raise DataError(
                    f"{where}: {self.label!r} is {value!r}, expected 0 or 1: the number of the response that won"
                )
            return 1.0 - float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(
                f"{where}: {self.label!r} is {value!r}, expected a probability in [0, 1] that the first response wins; "
                "divide percentages by 100, turn a score s into 1 / (1 + exp(-s))"
            )
        return float(value)


def _form_of(raw: Dataset, name: str) -> _Form:
    columns = set(raw.column_names)
    found = [form for form in FORMS if form.fits(columns)]
    if len(found) > 1:
        pairs = " and ".join(f"{form.first!r}/{form.second!r}" for form in found)
        raise DataError(f"{name} has the columns of two formats, {pairs}; remove those that are not meant")
    if not found:
        raise DataError(
            f"{name} has the columns {', '.join(map(repr, raw.column_names))}, which is no preference data; expected "
            f"{EXPECTED}"
        )
    if "prompt" not in columns and found[0].first != "chosen":
        raise DataError(f"{name} has no column 'prompt', which {found[0].first!r} and {found[0].second!r} need; add it")
    return found[0]


def _label_column(raw: Dataset, form: _Form, label: Label | None, signs: bool, name: str) -> str | None:
    if not form.winner:
        if label is not None:
            raise DataError(
                f"label={label!r} chooses between 'better_response_id' and 'safer_response_id', but {name} has neither "
                "format; leave it out"
            )
        return form.win_prob if form.win_prob in raw.column_names else None
    present = [column for column in form.winner if column in raw.column_names]
    if label is None:
        wanted = "safer_response_id" if signs else "better_response_id"
        return wanted if wanted in present else present[0]
    if label not in ("better", "safer"):
        raise DataError(f"label={label!r}, expected 'better' or 'safer'")
    if f"{label}_response_id" not in present:
        raise DataError(f"{name} has no column {label + '_response_id'!r}, only {present[0]!r}; leave label out")
    return f"{label}_response_id"


def _sign_columns(raw: Dataset, form: _Form, signs: bool, name: str) -> tuple[str, str] | None:
    if form.safe is not None and set(form.safe) <= set(raw.column_names):
        return form.safe
    if not signs:
        return None
    columns = " and ".join(map(repr, form.safe or ()))
    raise DataError(
        f"{name} has no signs of safety: a cost model learns which responses are safe from the columns {columns} "
        "(true or false); add them, or train kind 'reward'"
    )


def _sign(value: Any, where: str, column: str) -> bool:
    # -1 and 1 are how cost labels are often written: positive is unsafe there, which is the reverse of ours.
    if not isinstance(value, bool):
        raise DataError(f"{where}: {column!r} is {value!r}, expected true (safe) or false (unsafe)")
    return value


def _without_prompt(prompt: Any, first: Any, second: Any) -> tuple[Any, Any]:
    """Take the prompt's turns off two dialogues that repeat them; anything else stays as it is."""
    if not isinstance(prompt, list) or not isinstance(first, list) or not isinstance(second, list):
        return first, second
    size = len(prompt)
    repeats = len(first) > size and len(second) > size and first[:size] == prompt and second[:size] == prompt
    return (first[size:], second[size:]) if repeats else (first, second)


def _response(value: Any, where: str, column: str) -> str:
    """The text of a response, given as text or as one turn of the assistant."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise DataError(f"{where}: {column!r} is {_kind(value)}, expected text or one turn of the assistant")
    if len(value) != 1:
        roles = ", ".join(str(turn.get("role")) for turn in value) or "none"
        raise DataError(
            f"{where}: {column!r} has {len(value)} turns behind the prompt ({roles}), expected one of the assistant; "
            "keep the turns that both responses share in 'prompt' and compare the last one"
        )
    role, content = value[0].get("role"), value[0].get("content")
    if role != "assistant" or not isinstance(content, str):
        raise DataError(
            f"{where}: {column!r} is a turn of {role!r} with {_kind(content)}, expected one of 'assistant' with text"
        )
    return content


def _trouble(row: Mapping[str, Any]) -> Literal["equal", "empty"] | None:
    if row["first"] == row["second"]:  # also where both are empty: there is nothing to prefer
        return "equal"
    return None if row["first"].strip() and row["second"].strip() else "empty"


def _handle(trouble: str, action: Action, name: str, index: int) -> None:
    if action == "drop":
        return
    if trouble == "equal":
        raise DataError(
            f"{name}, row {index}: the two responses are equal, so that there is nothing to prefer; remove the row or "
            "set on_equal='drop'"
        )
    raise DataError(f"{name}, row {index}: a response is empty; remove the row or set on_empty='drop'")


def _dataset(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    types: dict[str, Callable[[], Any]] = {
        "win_prob": lambda: Value("float64"),
        "first_safe": lambda: Value("bool"),
        "second_safe": lambda: Value("bool"),
        "row": lambda: Value("int64"),
    }
    text_prompts = isinstance(rows[0]["prompt"], str)
    prompt = Value("string") if text_prompts else [{"role": Value("string"), "content": Value("string")}]
    features = {key: types[key]() if key in types else Value("string") for key in columns}
    return Dataset.from_dict(columns, features=Features({**features, "prompt": prompt}))


def _total(dropped: Dropped) -> int:
    return dropped.equal + dropped.empty


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "a list of turns" if isinstance(value, list) else f"a {type(value).__name__}"
