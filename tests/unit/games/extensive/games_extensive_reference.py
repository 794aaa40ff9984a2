"""Random policies, and values by plain recursion over OpenSpiel's states: slow, and nothing shared with the library."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnetar.games.extensive import ExtensiveGame

FloatArray = NDArray[np.float64]


def random_policy(game: ExtensiveGame, seed: int, with_zeros: bool = False) -> FloatArray:
    rng = np.random.default_rng(seed)
    weight = rng.exponential(size=game.legal.shape) * game.legal
    if with_zeros:
        weight *= rng.random(weight.shape) < 0.6
        weight += game.legal * (weight.sum(axis=1, keepdims=True) == 0)
    return weight / weight.sum(axis=1, keepdims=True)


def values_by_recursion(
    game: ExtensiveGame, policy: FloatArray, opponent: FloatArray, fee: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Q (I, A) and the game's value to both players, when each player's opponent plays ``opponent``."""
    row = {(int(p), key): i for i, (p, key) in enumerate(zip(game.infostate_player, game.keys, strict=True))}
    numerator, denominator = np.zeros(game.legal.shape), np.zeros(game.num_infostates)
    roots = np.zeros(2)

    def value(state: Any, player: int, reach: float) -> float:
        """Chips to ``player``; ``reach`` is the probability by chance and by the other player."""
        if state.is_terminal():
            return state.returns()[player]
        if state.is_chance_node():
            return sum(p * value(state.child(o), player, reach * p) for o, p in state.chance_outcomes())
        i = row[state.current_player(), state.information_state_string()]
        total = 0.0
        if state.current_player() != player:
            for action in state.legal_actions():
                share = opponent[i, action]
                total += share * value(state.child(action), player, reach * share)
            return total + fee[i]
        denominator[i] += reach
        for action in state.legal_actions():
            after = value(state.child(action), player, reach)
            numerator[i, action] += reach * after
            total += policy[i, action] * after
        return total - fee[i]

    for player in (0, 1):
        roots[player] = value(game.openspiel.new_initial_state(), player, 1.0)
    reached = denominator > 0
    return numerator * (reached / np.where(reached, denominator, 1.0))[:, None], roots
