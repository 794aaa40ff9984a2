"""How players turn a prompt into tokens, and one line where they differ."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from magnetar.evaluation.players.base import StreamingPlayer
from magnetar.evaluation.players.endpoint import EndpointPlayer
from magnetar.evaluation.players.models import CheckpointPlayer, ModelPlayer, RolePlayer

__all__ = ["rendering_note"]


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
        tokenizer = _tokenizer(player)
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


def _tokenizer(player: StreamingPlayer) -> Any:
    if isinstance(player, ModelPlayer | RolePlayer):
        return player.tokenizer
    if isinstance(player, CheckpointPlayer):
        from magnetar.modeling.loading import load_tokenizer

        return load_tokenizer(player.spec)
    return None


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()
