"""References to what another stage makes: ``stage:product``, in the place of the name of a model, dataset or judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from magnetar.errors import ConfigError, unknown_name

__all__ = ["STAGES", "Reference", "parse_reference", "references_in"]

STAGES = ("data", "sft", "preference", "train", "evaluate", "attack", "exploit", "benchmark", "report")
"""The stages in the order in which they run."""
MADE_BY = ("data", "sft", "preference", "train")
"""Stages whose products others use."""


@dataclass(frozen=True)
class Reference:
    """A product of a stage.

    Attributes:
        stage: Which stage makes it.
        path: Parts of its name, such as ``("MPO", "round-2")`` of ``train:MPO/round-2``.
    """

    stage: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.stage}:{'/'.join(self.path)}"


def parse_reference(value: Any) -> Reference | None:
    """Read a reference.

    Args:
        value: What a configuration says.

    Returns:
        The reference; None for anything else, such as the name of a model or the spec of a judge.

    Raises:
        ConfigError: It begins with a stage and names none of its products.
    """
    if not isinstance(value, str) or ":" not in value:
        return None
    stage, rest = value.split(":", 1)
    if stage not in MADE_BY:
        return None
    path = tuple(part.strip() for part in rest.split("/"))
    if not all(path):
        raise ConfigError(f"{value!r} names nothing that stage {stage!r} makes; write {stage}:NAME")
    return Reference(stage, path)


def references_in(value: Any) -> list[Reference]:
    """All references within settings, in their order, each once."""
    found: dict[Reference, None] = {}

    def walk(entry: Any) -> None:
        if isinstance(entry, Mapping):
            for part in entry.values():
                walk(part)
        elif isinstance(entry, list | tuple):
            for part in entry:
                walk(part)
        else:
            reference = parse_reference(entry)
            if reference is not None:
                found[reference] = None

    walk(value)
    return list(found)


def unknown_reference(reference: Reference, known: Mapping[str, Any] | list[str], configured: bool) -> ConfigError:
    """An error that names the nearest product that exists.

    Args:
        reference: To something that is not there.
        known: Products of its stage that are made before.
        configured: Whether the configuration has that stage.
    """
    if known:
        kind = f"product of stage {reference.stage!r}"
        return ConfigError(unknown_name(kind, str(reference), [str(name) for name in known]))
    if configured:
        return ConfigError(
            f"{str(reference)!r} is used before it is made: stages run in the order {', '.join(STAGES)}; name "
            "something that an earlier stage makes, or a model, a dataset or a judge from elsewhere"
        )
    return ConfigError(
        f"{str(reference)!r} is used, but the configuration has no stage {reference.stage!r}; add it, or name a "
        "model, a dataset or a judge in its place"
    )
