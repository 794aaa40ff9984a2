"""Parts of a dataset that share no prompt, by number, by share, or what is left."""

import math
from collections.abc import Mapping, Sequence

from datasets import Dataset, concatenate_datasets

from magnetar.data.splits import split_preferences
from magnetar.errors import DataError

__all__ = ["REST", "Part", "check_parts", "split_parts"]

REST = "rest"
Part = int | float | str | Sequence[str]
"""Rows (1 or more), a share (below 1) of what is left, "rest", or the names of parts that it is made of."""


def check_parts(parts: Mapping[str, Part], where: str = "parts") -> None:
    """Check sizes and names without the data.

    Raises:
        DataError: A size that is none, two parts that both take the rest, or one made of parts that do not exist.
    """
    if not parts:
        raise DataError(f"{where} is empty, expected at least one, such as {{train: rest}}")
    taken = False
    for name, size in parts.items():
        if isinstance(size, str):
            if size != REST:
                raise DataError(f"{where}: {name} is {size!r}, expected rows, a share, 'rest' or a list of parts")
            if taken:
                raise DataError(f"{where}: {name} is 'rest', but another part has taken all that is left")
            taken = True
        elif isinstance(size, Sequence):
            unknown = [part for part in size if part not in parts or not isinstance(parts[part], int | float | str)]
            if unknown or not size:
                raise DataError(
                    f"{where}: {name} is made of {', '.join(map(str, unknown)) or 'nothing'}, expected names of other "
                    "parts that are no unions themselves"
                )
        elif isinstance(size, bool) or not math.isfinite(size) or size <= 0:
            raise DataError(f"{where}: {name} is {size!r}, expected rows (1 or more) or a share (below 1)")
        elif taken:
            raise DataError(f"{where}: {name} comes after a part that takes the rest; name that one last")


def split_parts(rows: Dataset, parts: Mapping[str, Part], seed: int, *, stratified: bool = False) -> dict[str, Dataset]:
    """Split a dataset such that no prompt is in two parts, but for parts that are made of others.

    Parts are taken one after the other from what is left, as `split_preferences` takes them, so that neither the order
    of the rows nor the machine matters.

    Args:
        rows: With a column ``prompt``.
        parts: Name → size, in order; see `Part`.
        seed: Of the choice.
        stratified: Whether each category (column ``category``) gives the same share to every part.

    Returns:
        Name → rows, in the order of the dataset.

    Raises:
        DataError: A part would be empty, or there are no categories to stratify by.
    """
    check_parts(parts)
    if stratified and "category" not in rows.column_names:
        raise DataError("stratified is true, but the data has no column 'category'; remove it, or add the column")
    groups = _by_category(rows) if stratified else [rows]
    found: dict[str, list[Dataset]] = {}
    for group in groups:
        left: Dataset | None = group
        for name, size in parts.items():
            if isinstance(size, Sequence) and not isinstance(size, str):
                continue
            if left is None:
                raise DataError(f"part {name!r} would be empty: the parts before it take all {len(rows)} rows")
            if size == REST:
                left, taken = None, left
            else:
                amount = float(size)  # type: ignore[arg-type]
                wanted = amount if amount < 1 else max(1, round(amount * len(group) / len(rows)))
                left, taken = split_preferences(left, wanted, seed)
            found.setdefault(name, []).append(taken)
    result = {name: concatenate_datasets(pieces) for name, pieces in found.items()}
    for name, size in parts.items():
        if name not in result:
            result[name] = concatenate_datasets([result[part] for part in size])  # type: ignore[union-attr]
    return {name: result[name] for name in parts}


def _by_category(rows: Dataset) -> list[Dataset]:
    categories: dict[str, list[int]] = {}
    for index, category in enumerate(rows["category"]):
        categories.setdefault(str(category), []).append(index)
    return [rows.select(indices) for indices in categories.values()]
