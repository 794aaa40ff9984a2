"""Prompts by category."""

from collections.abc import Sequence

from datasets import Dataset

from magnetar.errors import DataError, unknown_name

__all__ = ["require_categories", "select_categories"]


def require_categories(prompts: Dataset, source: str) -> None:
    """Raise a `DataError` unless prompts have categories."""
    if "category" not in prompts.column_names:
        raise DataError(
            f"{source} has no column 'category', but figures by category are asked for; add the column, or do not ask "
            "for categories"
        )


def select_categories(prompts: Dataset, names: Sequence[str], source: str) -> Dataset:
    """The prompts of some categories.

    Args:
        prompts: As `magnetar.data.load_prompts` returns them.
        names: Categories; all where none is named.
        source: What the dataset is called in messages.

    Returns:
        Those prompts, in their order.

    Raises:
        DataError: There are no categories, or none of that name.
    """
    require_categories(prompts, source)
    labels = prompts["category"][:]
    for name in names:
        if name not in labels:
            raise DataError(f"{source}: {unknown_name('category', name, set(labels))}")
    return prompts.select([row for row, label in enumerate(labels) if label in names]) if names else prompts
