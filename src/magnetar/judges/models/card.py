"""The card of a trained judge: what a folder of weights does not say about how it is to be asked."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from magnetar.errors import JudgeError

__all__ = ["CARD_FILE", "KINDS_OF_MODEL", "JudgeCard", "card_of_kind", "read_card", "write_card"]

CARD_FILE = "magnetar_judge.json"
KINDS_OF_MODEL = ("reward", "cost", "pairwise", "general")


@dataclass(frozen=True)
class JudgeCard:
    """How a trained judge is asked; written beside its weights, read when it is loaded.

    Attributes:
        kind: "reward", "cost", "pairwise" or "general".
        template: What a pairwise model reads, with the fields `{prompt}`, `{first}` and `{second}`; None for others.
        temperature: Divides differences of scores (reward, cost) or the general model's score; positive.
        max_length: Longest input in tokens during training; None for the model's own limit.
        normalize: Whether a general model's embedding is scaled to unit length.
        training: Facts of the training for people: data, settings, measures.
        magnetar: Version that wrote the card.
    """

    kind: str
    template: str | None = None
    temperature: float = 1.0
    max_length: int | None = None
    normalize: bool = True
    training: Mapping[str, Any] = field(default_factory=dict)
    magnetar: str = ""


def write_card(folder: str | Path, card: JudgeCard) -> None:
    """Write a card into a model's folder.

    Args:
        folder: The model's folder; exists.
        card: The card.
    """
    text = json.dumps(asdict(card), indent=2, ensure_ascii=False)
    (Path(folder) / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def read_card(source: str) -> JudgeCard | None:
    """Read the card of a model.

    Args:
        source: Folder or hub name.

    Returns:
        The card; None for a model without one, which is what most models on the Hub are.

    Raises:
        JudgeError: If the card is damaged, or of a kind that this version does not know.
    """
    file = _card_file(source)
    if file is None:
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        known = {item.name for item in fields(JudgeCard)}
        # A later version may say more than this one understands; what it says of asking is checked below.
        card = JudgeCard(**{key: value for key, value in content.items() if key in known})
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise JudgeError(
            f"{str(file)!r} is not the card of a judge ({type(error).__name__}: {error}); save the model again, or "
            "remove the file and give the judge's options yourself"
        ) from error
    if card.kind not in KINDS_OF_MODEL:
        raise JudgeError(f"{str(file)!r}: kind {card.kind!r}, expected one of {', '.join(KINDS_OF_MODEL)}")
    return card


def card_of_kind(source: str, kind: str) -> JudgeCard:
    """Read the card of a model that is to be a judge of some kind.

    Args:
        source: Folder or hub name.
        kind: "reward", "cost", "pairwise" or "general".

    Returns:
        Its card; one that says nothing but the kind for a model without one.

    Raises:
        JudgeError: If the card is damaged, or of another kind.
    """
    card = read_card(source) or JudgeCard(kind)
    if card.kind != kind:
        raise JudgeError(f"judge '{kind}:{source}' was trained as {card.kind}; write {card.kind}:{source}")
    return card


def _card_file(source: str) -> Path | None:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder / CARD_FILE if (folder / CARD_FILE).is_file() else None
    from transformers.utils.hub import cached_file

    found = cached_file(
        source, CARD_FILE, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return None if found is None else Path(found)
