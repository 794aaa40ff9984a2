"""What the data stage made, looked at before anything trains: a mistake in it is told at once, not hours later."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError, DataError
from magnetar.pipeline.plan import Step
from magnetar.pipeline.references import parse_reference

__all__ = ["check_data"]

SIGNS = ("first_safe", "second_safe")


def check_data(steps: Iterable[Step], work: Work) -> None:
    """Check that datasets which the pipeline has made hold what the steps will read of them.

    Args:
        steps: That may run.
        work: Of the pipeline.

    Raises:
        ConfigError: Responses, pairs, signs of safety or categories are needed, and are not there.
    """
    for step in steps:
        where = step.name.replace("/", ": ")
        if step.stage == "sft":
            for key in ("dataset", "eval_dataset"):
                _expect(step.settings.get(key), ("demonstrations", "pairs"), f"{where}: {key}", work)
        elif step.stage == "preference":
            for key in ("dataset", "eval_pairs"):
                _expect(step.settings.get(key), ("pairs",), f"{where}: {key}", work)
            if step.settings.get("kind") == "cost":
                _expect_signs(step.settings.get("dataset"), f"{where}: dataset", work)
        elif step.stage in ("evaluate", "attack"):
            _expect_categories(step.settings["prompts"], where, work)


def _made(value: Any, work: Work) -> Path | None:
    """The file of a dataset that the pipeline has made; None for others."""
    reference = parse_reference(value)
    if reference is None or reference.stage != "data":
        return None
    path = Path(work.place(value))
    return path if path.is_file() and path.stat().st_size else None


def _columns(path: Path) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return list(json.loads(lines.readline()))


def _expect(value: Any, kinds: tuple[str, ...], where: str, work: Work) -> None:
    from magnetar.data.demonstrations import kind_of

    path = _made(value, work)
    found = None if path is None else kind_of(_columns(path))
    if found is not None and found not in kinds:
        raise ConfigError(f"{where} is {value!r}, which holds {found}, expected {' or '.join(kinds)}")


def _expect_signs(value: Any, where: str, work: Work) -> None:
    path = _made(value, work)
    if path is not None and not set(SIGNS) <= set(_columns(path)):
        raise ConfigError(
            f"{where} is {value!r}, whose pairs do not say which responses are safe, and a cost model learns that; "
            "give its data 'signs: preferred' to take the preferred response for safe, or train kind reward"
        )


def _expect_categories(prompts: Any, where: str, work: Work) -> None:
    if not isinstance(prompts, Mapping):
        return
    path, asked = _made(prompts.get("dataset"), work), prompts.get("categories", "auto")
    if path is None or asked in ("auto", "none"):
        return
    from magnetar.data import load_prompts
    from magnetar.evaluation.categories import require_categories, select_categories

    rows, name = load_prompts(str(path)), str(prompts["dataset"])
    try:
        if asked == "required":
            require_categories(rows, name)
        else:
            select_categories(rows, tuple(asked), name)
    except DataError as error:
        raise ConfigError(f"{where}: prompts: {error}") from error
