"""Games by name: a registry of the ready-made ones, and one form of text that names any game with its settings.

Examples:
    >>> from magnetar import games
    >>> games.by_name("random:actions=100,seed=3")
    PreferenceGame('random_game(100, seed=3)', 100 actions)
"""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from magnetar.errors import GameError, unknown_name
from magnetar.games.builders.annotators import annotator_game, condorcet_cycle, random_annotators, ranking_game
from magnetar.games.builders.empirical import empirical_game
from magnetar.games.builders.files import load
from magnetar.games.builders.generators import (
    biased_rps,
    bradley_terry,
    cyclic_block_game,
    cyclic_game,
    disc_game,
    egpo_game,
    egpo_reference,
    game_of_points,
    noisy_bradley_terry,
    random_game,
    rps,
    tournament,
)
from magnetar.games.game import PreferenceGame
from magnetar.games.settings import read_settings, split_spec

__all__ = [
    "BUILDERS",
    "READERS",
    "BuilderDescription",
    "annotator_game",
    "biased_rps",
    "bradley_terry",
    "by_name",
    "condorcet_cycle",
    "cyclic_block_game",
    "cyclic_game",
    "describe",
    "disc_game",
    "egpo_game",
    "egpo_reference",
    "game_of_points",
    "noisy_bradley_terry",
    "random_annotators",
    "random_game",
    "ranking_game",
    "rps",
    "tournament",
]

BUILDERS: dict[str, Callable[..., PreferenceGame]] = {
    "rps": rps,
    "biased_rps": biased_rps,
    "cyclic_game": cyclic_game,
    "cyclic_block_game": cyclic_block_game,
    "disc_game": disc_game,
    "condorcet_cycle": condorcet_cycle,
    "random_annotators": random_annotators,
    "tournament": tournament,
    "bradley_terry": bradley_terry,
    "noisy_bradley_terry": noisy_bradley_terry,
    "random_game": random_game,
    "egpo_game": egpo_game,
}
"""Every builder by its name; each can be called without arguments."""

READERS: dict[str, Callable[..., PreferenceGame]] = {"file": load, "empirical": empirical_game}
"""What reads a game from a file, by the word before the colon: ``file:PATH``, ``empirical:PATH,minimum_prompts=20``."""


@dataclass(frozen=True)
class BuilderDescription:
    """One row of the list of games.

    Attributes:
        name: What `by_name` takes.
        settings: Name and default of each setting, in order; "required" where there is no default.
        summary: First sentence of the builder's docstring, without the full stop.
    """

    name: str
    settings: tuple[tuple[str, str], ...]
    summary: str


def describe() -> tuple[BuilderDescription, ...]:
    """List everything that `by_name` can build, with settings and one line of description.

    Returns:
        The ready-made games, then the ways to read one from a file.
    """
    rows = []
    for name, build in {**BUILDERS, **READERS}.items():
        settings = tuple(
            (key, "required" if parameter.default is parameter.empty else str(parameter.default))
            for key, parameter in inspect.signature(build).parameters.items()
        )
        rows.append(BuilderDescription(name, settings, _summary(build)))
    return tuple(rows)


def by_name(spec: str | Path, actions: int | None = None, seed: int | None = None, **settings: Any) -> PreferenceGame:
    """Build the game that a text names.

    The text is the name of a builder (a final "_game" may be left out), alone or with settings behind a colon:
    ``rps``, ``random:actions=100,seed=3``. Or it is a file: a path with a suffix or a folder, ``file:PATH``, or
    ``empirical:PATH`` with settings of `empirical_game`.

    Args:
        spec: A key of `BUILDERS` with or without settings, or a file.
        actions: Number of actions; None keeps the builder's default.
        seed: Seed; None keeps the builder's default.
        settings: Further settings of the builder.

    Returns:
        The game.

    Raises:
        GameError: Unknown name, a setting that this builder does not have or that is given twice, or a value that is
            not of the setting's type.
    """
    if not isinstance(spec, str | os.PathLike):
        raise GameError(f"a game is named by text such as 'random:actions=100,seed=3', not by a {type(spec).__name__}")
    text = os.fspath(spec).strip()
    head, colon, rest = text.partition(":")
    if isinstance(spec, os.PathLike) or (not colon and _looks_like_a_path(head)):
        head, rest = "file", text
    name, build = _builder(head)
    parameters = inspect.signature(build).parameters
    given: dict[str, Any] = {key: value for key, value in (("actions", actions), ("seed", seed)) if value is not None}
    given |= settings
    for key, value in given.items():
        if key not in parameters:
            raise GameError(_unknown_setting(name, key, value, list(parameters)))
    for key, value in _read_text(name, build, text, rest).items():
        if key in given:
            raise GameError(f"{key} is given twice for game {name!r}: {value} in {text!r}, and {given[key]}; keep one")
        given[key] = value
    return build(**given)


def _builder(head: str) -> tuple[str, Callable[..., PreferenceGame]]:
    known: Mapping[str, Callable[..., PreferenceGame]] = {**BUILDERS, **READERS}
    for name in (head, f"{head}_game"):
        if name in known:
            return name, known[name]
    raise GameError(unknown_name("game", head, known))


def _looks_like_a_path(text: str) -> bool:
    return bool(Path(text).suffix) or os.sep in text


def _read_text(name: str, build: Callable[..., PreferenceGame], spec: str, text: str) -> dict[str, Any]:
    """Settings behind the colon; for a reader the file comes first, without a key."""
    if name not in READERS:
        return read_settings("game", name, build, split_spec(f"{name}:{text}", GameError)[1], GameError)
    # A comma within a file's name stays: no "key=" follows it.
    path, *pairs = re.split(r",(?=\s*\w+\s*=)", text)
    if not path.strip():
        raise GameError(f"game {spec!r} names no file, expected {name}:PATH")
    first = next(iter(inspect.signature(build).parameters))
    return {first: path.strip()} | read_settings("game", name, build, pairs, GameError)


def _unknown_setting(name: str, key: str, value: Any, parameters: list[str]) -> str:
    nearest = get_close_matches(key, parameters, n=1, cutoff=0.5)
    fix = f"did you mean {nearest[0]!r}? " if nearest else ""
    owners = [other for other, make in BUILDERS.items() if key in inspect.signature(make).parameters]
    fix += f"it has {', '.join(parameters)}" if parameters else "it has none"
    fix += f"; games with {key!r}: {', '.join(owners)}" if owners and not nearest else ""
    return f"game {name!r} has no setting {key!r} (given {value}); {fix}"


def _summary(function: object) -> str:
    lines = (function.__doc__ or "").strip().splitlines()
    return lines[0].rstrip(".") if lines else ""
