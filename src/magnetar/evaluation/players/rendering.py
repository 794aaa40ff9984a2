"""How players turn a prompt into tokens: whether they can, and one line where they differ."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from magnetar.data import render_prompts
from magnetar.errors import DataError, ModelError
from magnetar.evaluation.players.base import StreamingPlayer
from magnetar.evaluation.players.digests import RENDERING, folder_digest
from magnetar.evaluation.players.endpoint import EndpointPlayer
from magnetar.evaluation.players.models import CheckpointPlayer, ModelPlayer, RolePlayer
from magnetar.types import Prompt

__all__ = ["player_tokenizer", "refuse_unreadable", "rendering_note"]


def rendering_note(players: Mapping[str, StreamingPlayer]) -> str | None:
    """One line for the reader where players have different tokenizers or chat templates.

    Both are fine in a match-up, since the judge compares texts: each player reads a prompt as it was trained to. Only
    lengths in tokens cannot be compared.

    Args:
        players: By name; those whose answers are in a file render nothing.

    Returns:
        The line; None where all render alike.
    """
    tokenizers: dict[str, list[str]] = {}
    templates: dict[str, list[str]] = {}
    for name, player in players.items():
        if isinstance(player, EndpointPlayer):
            tokenizers.setdefault(player.name, []).append(name)
            templates.setdefault(player.name, []).append(name)
            continue
        tokenizer = player_tokenizer(player)
        if tokenizer is not None:
            tokenizers.setdefault(_digest(tokenizer.get_vocab()), []).append(name)
            templates.setdefault(_digest(tokenizer.chat_template), []).append(name)
    differ = [what for what, groups in (("tokenizers", tokenizers), ("chat templates", templates)) if len(groups) > 1]
    if not differ:
        return None
    groups = tokenizers if len(tokenizers) > 1 else templates
    told = " / ".join(", ".join(names) for names in groups.values())
    return (
        f"different {' and '.join(differ)}: {told}; that is fine, each reads the prompts through its own, but lengths "
        "in tokens cannot be compared"
    )


def refuse_unreadable(players: Mapping[str, StreamingPlayer], prompts: Sequence[Prompt]) -> None:
    """Refuse prompts that a model's chat template does not take, before anybody answers.

    One prompt is tried of each succession of roles, which is what templates object to.

    Args:
        players: By name; those whose answers are elsewhere render nothing.
        prompts: What is to be answered.

    Raises:
        DataError: A template refuses a prompt; the player is named.
        ModelError: The prompts are chat turns, and a model has no template.
    """
    tried = {"text" if isinstance(one, str) else tuple(turn["role"] for turn in one): one for one in prompts[::-1]}
    for name, player in players.items():
        tokenizer = player_tokenizer(player)
        if tokenizer is None:
            continue
        for prompt in tried.values():
            try:
                render_prompts([prompt], tokenizer)
            except (DataError, ModelError) as error:
                raise type(error)(f"policy {name!r}: {error}") from error


def player_tokenizer(player: StreamingPlayer) -> Any:
    """The tokenizer of a player that has its model at hand, which is not loaded for it; None for another."""
    if isinstance(player, ModelPlayer | RolePlayer):
        return player.tokenizer
    if isinstance(player, CheckpointPlayer):
        folder = Path(player.spec).expanduser()
        return _loaded(player.spec, folder_digest(folder, RENDERING) if folder.is_dir() else "")
    return None


@lru_cache(maxsize=32)
def _loaded(spec: str, digest: str) -> Any:
    """A tokenizer, loaded once for as long as its files stay as they are."""
    from magnetar.modeling.loading import load_tokenizer

    del digest
    return load_tokenizer(spec)


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()
