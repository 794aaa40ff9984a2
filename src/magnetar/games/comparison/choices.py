"""Methods against games: which cells a comparison has. A cell is one method on one game."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import ConfigError, GameError, unknown_name
from magnetar.games.builders.registry import by_name, describe
from magnetar.games.builders.suite import SUITES, suite
from magnetar.games.game import PreferenceGame
from magnetar.games.settings import plain_settings, read_settings, setting_text, split_spec
from magnetar.methods import METHODS, Method, build_method

__all__ = [
    "Cell",
    "GameChoice",
    "MethodChoice",
    "Start",
    "check_updates",
    "choose_games",
    "choose_method",
    "display_labels",
    "game_digest",
    "game_settings",
    "starting_policy",
]

FloatArray = NDArray[np.float64]
Start = Literal["skewed", "uniform"]

# Exact updates have no such choices.
LANGUAGE_MODELS_ONLY = frozenset({"clip_range", "hard_labels", "kl_estimator", "loss", "pairs", "proximal", "target"})
SYMBOLS = {"step_size": "η", "magnet_strength": "α", "magnet_every": "T", "kl_coef": "β"}
MOST_UPDATES = 50_000_000  # curves of float64 beyond this fill the memory of an ordinary machine


@dataclass(frozen=True)
class MethodChoice:
    """A method as the user asked for it.

    Attributes:
        name: A key of `METHODS`.
        settings: What differs from the preset, as (name, value).
    """

    name: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """The choice as a spec: ``"mpo"``, or ``"mpo:step_size=2"``."""
        words = ",".join(f"{key}={setting_text(value)}" for key, value in self.settings)
        return f"{self.name}:{words}" if words else self.name

    @cached_property
    def method(self) -> Method:
        """The method.

        Raises:
            ConfigError: A setting outside its range.
        """
        return build_method(self.name, **dict(self.settings))

    @property
    def all_settings(self) -> dict[str, Any]:
        """Every setting that matters on a game, the preset's included."""
        return game_settings(self.name) | dict(self.settings)

    @property
    def has_magnet(self) -> bool:
        """Whether a magnet pulls on the policy."""
        return self.method.objective.needs_magnet

    @property
    def definition(self) -> str:
        """The method's whole definition; two choices that compute the same way have the same one."""
        return re.sub(r" at 0x[0-9a-f]+", "", repr(self.method))


@dataclass(frozen=True)
class GameChoice:
    """A game as the user asked for it, not kept in memory.

    Attributes:
        label: Name in tables and plots, unique in the comparison.
        spec: What `by_name` takes.
        actions: Names of its actions.
        digest: Hash of its matrix, see `game_digest`.
    """

    label: str
    spec: str
    actions: tuple[str, ...]
    digest: str

    def build(self) -> PreferenceGame:
        """Build the game.

        Raises:
            GameError: It cannot be built, or its file has changed since the comparison began.
        """
        game = by_name(self.spec)
        if game_digest(game) != self.digest:
            raise GameError(f"game {self.label!r} is not what it was when the comparison began; run the command again")
        return PreferenceGame(game.P, game.actions, self.label)


@dataclass(frozen=True)
class Cell:
    """One method on one game.

    Attributes:
        game: The game.
        choice: The method.
        updates: Number of updates.
        start: Where the policy starts, see `starting_policy`.
    """

    game: GameChoice
    choice: MethodChoice
    updates: int
    start: Start = "skewed"

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the cell's result; a result with another identity must not be used for this cell."""
        return {
            "game_sha256": self.game.digest,
            "method": self.choice.name,
            "definition": self.choice.definition,
            "updates": self.updates,
            "start": self.start,
            "version": version("magnetar"),
        }


def choose_method(spec: str) -> MethodChoice:
    """Read a method and its settings, and check that they work together.

    Args:
        spec: ``name`` or ``name:key=value,key=value``.

    Returns:
        The choice; its method has been built once.

    Raises:
        ConfigError: Unknown method or setting (with the nearest one), or a value that the method refuses.
    """
    name, pairs = split_spec(spec, ConfigError)
    if name not in METHODS:
        raise ConfigError(unknown_name("method", name, METHODS))
    settings = read_settings("method", name, METHODS[name], pairs, ConfigError)
    for key in settings:
        if key in LANGUAGE_MODELS_ONLY:
            known = ", ".join(game_settings(name))
            raise ConfigError(f"method {name!r}: {key} acts on language models only, not on games; known here: {known}")
    choice = MethodChoice(name, tuple(settings.items()))
    try:
        _ = choice.method
    except ConfigError as error:
        raise ConfigError(f"method {name!r}: {error}") from error
    return choice


def display_labels(choices: Sequence[MethodChoice]) -> list[str]:
    """Short names that tell the methods of one comparison apart.

    Args:
        choices: The methods, no two alike.

    Returns:
        For each its name; where a name occurs twice, the settings that differ follow, in the symbols of the theory.
    """
    labels = []
    for choice in choices:
        rivals = [other.all_settings for other in choices if other.name == choice.name]
        differing = {
            key: value
            for key, value in choice.all_settings.items()
            if any(other.get(key) != value for other in rivals)
        }  # fmt: skip
        words = " ".join(f"{SYMBOLS.get(key, key)}={setting_text(value)}" for key, value in differing.items())
        labels.append(f"{choice.name} {words}" if words else choice.name)
    return labels


def game_settings(name: str) -> dict[str, Any]:
    """Settings of a method that matter on a matrix game and have a form in words.

    Args:
        name: A key of `METHODS`.

    Returns:
        Defaults by name.
    """
    settings = plain_settings(METHODS[name])
    return {key: default for key, default in settings.items() if key not in LANGUAGE_MODELS_ONLY}


def choose_games(specs: Sequence[str], seeds: Sequence[int] | None = None) -> list[GameChoice]:
    """Read which games to play, build each once, and name them apart.

    Args:
        specs: Names with or without settings, files, or names of suites.
        seeds: For every game that has a seed and is given none: one game for each of these.

    Returns:
        The games, each once, in order.

    Raises:
        GameError: Unknown game, suite or setting (with the nearest one), a file that is no game, or no game at all.
    """
    names = dict.fromkeys(name for spec in specs for name in _expanded(spec, seeds))
    if not names:
        raise GameError("no games to play, expected at least one; see `magnetar games list`")
    stems = Counter(Path(name).stem for name in names if _is_file(name))
    choices = []
    for name in names:
        game = by_name(name)
        label = Path(name).stem if _is_file(name) and stems[Path(name).stem] == 1 else name
        choices.append(GameChoice(label, name, game.actions, game_digest(game)))
    return choices


def _expanded(spec: str, seeds: Sequence[int] | None) -> list[str]:
    """The specs behind one spec: the games of a suite, or one for each seed."""
    if spec in SUITES:
        return [one for game in suite(spec) for one in _expanded(game.name, seeds)]
    name, colon, rest = spec.partition(":")
    rows = {row.name: dict(row.settings) for row in describe()}
    known = next((rows[key] for key in (name, f"{name}_game") if key in rows), None)
    if known is None and not _is_file(spec) and not colon:
        raise GameError(unknown_name("game", name, [*rows, *SUITES]))
    given = {pair.partition("=")[0].strip() for pair in rest.split(",")}
    if not seeds or known is None or "seed" not in known or "seed" in given:
        return [spec]
    return [f"{spec}{',' if rest else '' if colon else ':'}seed={seed}" for seed in seeds]


def _is_file(spec: str) -> bool:
    return ":" not in spec and (bool(Path(spec).suffix) or "/" in spec)


def check_updates(updates: int) -> int:
    """Refuse a number of updates that no run could make.

    Args:
        updates: Number of updates.

    Returns:
        The same number.

    Raises:
        ConfigError: Negative, or too many to keep their curves.
    """
    if not 0 <= updates <= MOST_UPDATES:
        raise ConfigError(
            f"updates is {updates:,}, expected at least 0 and at most {MOST_UPDATES:,}; for longer runs call "
            "magnetar.games.run again from where it stopped"
        )
    return updates


def game_digest(game: PreferenceGame) -> str:
    """Hash of what a run depends on: the matrix, not the names.

    Args:
        game: The game.

    Returns:
        SHA-256 in hexadecimal.
    """
    return hashlib.sha256(f"{game.num_actions}:".encode() + np.ascontiguousarray(game.P).tobytes()).hexdigest()


def starting_policy(start: Start, actions: int) -> FloatArray:
    """Where runs start.

    Args:
        start: "uniform", or "skewed": action a, counted from 1, has a probability proportional to 1/a. Uniform is
            already the equilibrium of a symmetric game and would show nothing there.
        actions: A, at least 1.

    Returns:
        Shape (A,), sums to one.
    """
    weight = np.ones(actions) if start == "uniform" else 1.0 / np.arange(1, actions + 1)
    return weight / weight.sum()
