"""Suites: fixed lists of named games, for comparisons that anybody can repeat."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from magnetar.errors import GameError, unknown_name
from magnetar.games.builders.registry import by_name
from magnetar.games.game import PreferenceGame

__all__ = ["SUITES", "GameSpec", "suite"]


@dataclass(frozen=True)
class GameSpec:
    """A game that has a name and is not built yet.

    Attributes:
        name: Text that `by_name` takes; the same text gives the same game on every machine.
        family: Name of the builder.
        num_actions: Number of actions.
    """

    name: str
    family: str
    num_actions: int

    def build(self) -> PreferenceGame:
        """Build the game.

        Returns:
            The game, whose own name is this spec's.
        """
        game = by_name(self.name)
        return PreferenceGame(game.P, game.actions, self.name)


def suite(name: str = "standard") -> tuple[GameSpec, ...]:
    """List the games of a suite, without building them.

    Args:
        name: "standard": at least a hundred games of every kind, from 3 to 1,000 actions; "small": about a dozen
            of every kind, of at most 50 actions, for tests.

    Returns:
        The games' specs, always in the same order.

    Raises:
        GameError: Unknown name.
    """
    if name not in SUITES:
        raise GameError(unknown_name("suite", name, SUITES))
    return tuple(SUITES[name]())


def _spec(family: str, actions: int | None = None, **settings: Any) -> GameSpec:
    given = ({} if actions is None else {"actions": actions}) | settings
    text = ",".join(f"{key}={value}" for key, value in given.items())
    # Games without a number of actions are blocks, or forms of rock–paper–scissors.
    size = given["blocks"] * given["block_size"] if "blocks" in given else given.get("actions", 3)
    return GameSpec(f"{family}:{text}" if text else family, family, size)


def _small() -> Iterator[GameSpec]:
    yield _spec("rps")
    yield _spec("biased_rps")
    yield _spec("cyclic_game", 9)
    yield _spec("cyclic_block_game", blocks=3, block_size=4, seed=0, difference=0.1)
    yield _spec("disc_game", 50, seed=0)
    yield _spec("condorcet_cycle", 5)
    yield _spec("random_annotators", 20, seed=0)
    yield _spec("tournament", 11, seed=0)
    yield _spec("bradley_terry", 10, seed=0)
    yield _spec("noisy_bradley_terry", 50, seed=0)
    yield _spec("random_game", 10, seed=0)
    yield _spec("random_game", 30, seed=1)
    yield _spec("egpo_game", 10, seed=0)


def _standard() -> Iterator[GameSpec]:
    yield from _cycles()
    yield from _orders()
    for size in (3, 5, 10, 20, 50, 100, 200):
        for seed in range(3):
            yield _spec("random_game", size, seed=seed)
    for size in (500, 1000):
        yield _spec("random_game", size, seed=0)
    # As many games, of as many actions, as in EGPO's simulations.
    for seed in range(10):
        yield _spec("egpo_game", 10, seed=seed)
    yield _spec("egpo_game", 100, seed=0)
    for size in (10, 50, 200, 500):
        for annotators in (3, 25):
            yield _spec("random_annotators", size, seed=size, annotators=annotators)
        yield _spec("random_annotators", size, seed=size, annotators=5, agreement=0.5, form="probability")
    for size in (11, 51, 201, 1000):
        yield _spec("tournament", size, seed=size)
        yield _spec("tournament", size, seed=size, win=0.6)


def _cycles() -> Iterator[GameSpec]:
    yield _spec("rps")
    yield _spec("biased_rps")
    yield _spec("biased_rps", p01=0.99, p12=0.6, p20=0.6)
    yield _spec("biased_rps", p01=0.55, p12=0.95, p20=0.75)
    for size in (5, 10, 25, 101, 501):
        yield _spec("cyclic_game", size)
    yield _spec("cyclic_game", 25, win=0.6)
    for blocks, size in ((3, 4), (5, 10), (7, 30), (9, 100)):
        yield _spec("cyclic_block_game", blocks=blocks, block_size=size, seed=0)
        yield _spec("cyclic_block_game", blocks=blocks, block_size=size, seed=0, win=0.7, difference=0.1)
    for size in (10, 50, 200, 1000):
        yield _spec("disc_game", size, seed=size)
        yield _spec("disc_game", size, seed=size, strength=6.0, discs=5)
        yield _spec("disc_game", size, seed=size, form="linear")
    for size in (3, 5, 20, 100):
        yield _spec("condorcet_cycle", size)
    yield _spec("condorcet_cycle", 3, form="probability")
    yield _spec("condorcet_cycle", 20, form="probability", temperature=5.0)


def _orders() -> Iterator[GameSpec]:
    for size, spread in ((3, 1.0), (10, 1.0), (100, 0.3), (100, 3.0), (1000, 1.0)):
        yield _spec("bradley_terry", size, seed=size, spread=spread)
    for size in (10, 50, 100, 300, 1000):
        for noise in (0.3, 1.0, 3.0):
            yield _spec("noisy_bradley_terry", size, seed=size, noise=noise)


SUITES = {"standard": _standard, "small": _small}
"""Every suite by its name."""
