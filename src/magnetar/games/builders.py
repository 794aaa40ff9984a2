"""Ready-made games, from three actions to as many as wanted, and a registry of them by name."""

import inspect
from collections.abc import Callable

import numpy as np

from magnetar.errors import GameError, unknown_name
from magnetar.games.game import PreferenceGame

__all__ = ["BUILDERS", "biased_rps", "by_name", "cyclic_game", "noisy_bradley_terry", "random_game", "rps"]

RPS_ACTIONS = ("rock", "paper", "scissors")


def rps() -> PreferenceGame:
    """Rock–paper–scissors: paper beats rock, scissors beat paper, rock beats scissors, always.

    Returns:
        Three actions; the equilibrium is uniform.
    """
    return PreferenceGame(cyclic_game(3).P, actions=RPS_ACTIONS, name="rps")


def biased_rps() -> PreferenceGame:
    """Rock–paper–scissors with unequal odds, so that the equilibrium is not where most runs start.

    Returns:
        Three actions with ``P = [[.5, .9, .2], [.1, .5, .8], [.8, .2, .5]]``; the equilibrium is (0.3, 0.3, 0.4).
    """
    return PreferenceGame([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]], name="biased_rps")


def cyclic_game(actions: int = 9) -> PreferenceGame:
    """Rock–paper–scissors with any number of actions: on a circle, each beats the half behind it.

    Action i beats ``i − 1, …, i − ⌊(A−1)/2⌋`` (modulo A) with certainty and loses to the rest; with an even number the
    opposite action is a tie.

    Args:
        actions: A, at least 1.

    Returns:
        A game of A actions; the uniform policy is an equilibrium.

    Raises:
        GameError: Fewer than one action.
    """
    _check_actions(actions)
    ahead = (np.arange(actions)[:, None] - np.arange(actions)[None, :]) % actions
    win_prob = np.where((ahead == 0) | (2 * ahead == actions), 0.5, np.where(2 * ahead < actions, 1.0, 0.0))
    return PreferenceGame(win_prob, name=f"cyclic_game({actions})")


def random_game(actions: int = 10, seed: int = 0) -> PreferenceGame:
    """Game whose every pair has an independent win probability, uniform on [0, 1]: no order at all.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator; the same seed gives the same game.

    Returns:
        A game of A actions.

    Raises:
        GameError: Fewer than one action, or a negative seed.
    """
    _check_actions(actions)
    upper = np.triu(_generator(seed).random((actions, actions)), 1)
    lower = np.tril(1.0 - upper.T, -1)
    return PreferenceGame(upper + lower + 0.5 * np.eye(actions), name=f"random_game({actions}, seed={seed})")


def noisy_bradley_terry(actions: int = 50, seed: int = 0, spread: float = 1.0, noise: float = 1.0) -> PreferenceGame:
    r"""Scored actions with pairwise noise: mostly ordered, yet with cycles, as people's preferences are.

    ``P_ij = σ(s_i − s_j + ε_ij)`` with ``s_i ~ N(0, spread²)`` and antisymmetric ``ε_ij ~ N(0, noise²)``.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator; the same seed gives the same game.
        spread: Standard deviation of the scores, logits, at least 0.
        noise: Standard deviation of the noise, logits, at least 0; with 0 the game is Bradley–Terry and the best action
            is the equilibrium.

    Returns:
        A game of A actions.

    Raises:
        GameError: Fewer than one action, a negative seed, or a negative deviation.
    """
    _check_actions(actions)
    for setting, value in (("spread", spread), ("noise", noise)):
        if not 0 <= value < float("inf"):
            raise GameError(f"{setting} is {value}, expected a finite number of at least 0 (logits)")
    generator = _generator(seed)
    score = spread * generator.standard_normal(actions)
    upper = np.triu(noise * generator.standard_normal((actions, actions)), 1)
    logit = score[:, None] - score[None, :] + upper - upper.T
    # The hyperbolic tangent form neither overflows nor loses the antisymmetry.
    return PreferenceGame(0.5 * (1.0 + np.tanh(logit / 2.0)), name=f"noisy_bradley_terry({actions}, seed={seed})")


BUILDERS: dict[str, Callable[..., PreferenceGame]] = {
    "rps": rps,
    "biased_rps": biased_rps,
    "cyclic_game": cyclic_game,
    "random_game": random_game,
    "noisy_bradley_terry": noisy_bradley_terry,
}
"""Every builder by its name."""


def by_name(name: str, actions: int | None = None, seed: int | None = None) -> PreferenceGame:
    """Build a ready-made game.

    Args:
        name: A key of `BUILDERS`.
        actions: Number of actions; None keeps the builder's default.
        seed: Seed; None keeps the builder's default.

    Returns:
        The game.

    Raises:
        GameError: Unknown name, or a setting that this builder does not have.
    """
    if name not in BUILDERS:
        raise GameError(unknown_name("game", name, BUILDERS))
    given = {key: value for key, value in (("actions", actions), ("seed", seed)) if value is not None}
    accepted = inspect.signature(BUILDERS[name]).parameters
    for key, value in given.items():
        if key not in accepted:
            owners = [other for other, make in BUILDERS.items() if key in inspect.signature(make).parameters]
            raise GameError(f"game {name!r} has no setting {key!r} (given {value}); leave it out, or use {owners}")
    return BUILDERS[name](**given)


def _check_actions(actions: int) -> None:
    if actions < 1:
        raise GameError(f"actions is {actions}, expected at least 1")


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise GameError(f"seed is {seed}, expected an integer of at least 0")
    return np.random.default_rng(seed)
