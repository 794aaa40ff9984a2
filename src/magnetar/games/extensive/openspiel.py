"""What comes from OpenSpiel: the games, exploitability, and counterfactual regret minimisation as a yardstick.

Nothing here is loaded before it is called, so that the library needs no OpenSpiel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import GameError, MissingDependencyError, checked_integer, unknown_name
from magnetar.games.extensive.tree import ExtensiveGame, list_game

__all__ = ["Exploitability", "load_game", "policy_from_openspiel", "require_openspiel"]

FloatArray = NDArray[np.float64]

MAX_INFOSTATES = 50_000
MAX_HISTORIES = 1_000_000


def require_openspiel() -> Any:
    """OpenSpiel's module ``pyspiel``.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import pyspiel
    except ImportError as error:
        raise MissingDependencyError(
            f"extensive-form games need OpenSpiel, which cannot be imported ({error}); "
            'pip install "magnetar[poker]" (or: pip install open-spiel)'
        ) from error
    return pyspiel


def load_game(name: str, *, max_infostates: int = MAX_INFOSTATES, max_histories: int = MAX_HISTORIES) -> ExtensiveGame:
    """List an OpenSpiel game as flat arrays.

    Args:
        name: OpenSpiel's name, with parameters if wanted: "kuhn_poker", "leduc_poker",
            "leduc_poker(suit_isomorphism=true)".
        max_infostates: Refuse games with more information states (both players').
        max_histories: Refuse games with more histories.

    Returns:
        The game.

    Raises:
        MissingDependencyError: OpenSpiel is not installed.
        GameError: Unknown game or parameter; not two-player zero-sum, not turn by turn, chance that cannot be listed,
            no perfect recall, too large.
        ConfigError: A limit that is no integer of at least 1.
    """
    for setting, limit in (("max_infostates", max_infostates), ("max_histories", max_histories)):
        checked_integer(setting, limit, 1)
    if not isinstance(name, str):
        raise GameError(f"name is {name!r:.80}, expected OpenSpiel's name of a game as text; for instance 'kuhn_poker'")
    pyspiel = require_openspiel()
    short = name.split("(")[0].strip()
    # Asked beforehand: pyspiel prints the whole list of games to stderr before it raises.
    if short not in pyspiel.registered_names():
        raise GameError(_unknown(short, pyspiel.registered_names()))
    try:
        game = pyspiel.load_game(name)
    except pyspiel.SpielError as error:
        raise GameError(f"OpenSpiel cannot load {name!r}: {str(error).splitlines()[0]}") from error
    _check_kind(pyspiel, game, name)
    return list_game(game, name, max_infostates, max_histories)


def _unknown(name: str, known: list[str]) -> str:
    """The nearest name, and the two that are of use here rather than OpenSpiel's hundred."""
    message = unknown_name("OpenSpiel game", name, known)
    start = message.split("known: ")[0].rstrip(" ;")
    return start if start.endswith("?") else f"{start}; for instance kuhn_poker, leduc_poker"


def _check_kind(pyspiel: Any, game: Any, name: str) -> None:
    kind = game.get_type()
    if game.num_players() != 2 or kind.utility != pyspiel.GameType.Utility.ZERO_SUM:
        raise GameError(
            f"{name} has {game.num_players()} player(s) and {kind.utility.name.lower().replace('_', ' ')} payoffs, "
            "expected two players and zero sum; choose for instance kuhn_poker"
        )
    if kind.dynamics != pyspiel.GameType.Dynamics.SEQUENTIAL:
        raise GameError(
            f"{name} has {kind.dynamics.name.lower()} moves, expected one player at a time; wrap it as "
            f"'turn_based_simultaneous_game(game={name})'"
        )
    if kind.chance_mode == pyspiel.GameType.ChanceMode.SAMPLED_STOCHASTIC:
        raise GameError(f"{name} samples its chance moves, expected outcomes with probabilities that can be listed")
    if not kind.provides_information_state_string:
        raise GameError(f"{name} gives no information-state strings, expected a game that tells its players' knowledge")


def infostate_tensors(game: ExtensiveGame) -> FloatArray:
    """OpenSpiel's information-state tensor of every information state, the input of a neural policy.

    Args:
        game: The listed game.

    Returns:
        Shape (I, features).

    Raises:
        GameError: The game has no such tensors.
    """
    if not game.openspiel.get_type().provides_information_state_tensor:
        raise GameError(f"{game.name} gives no information-state tensors, which a neural policy needs as input")
    tensors = np.zeros((game.num_infostates, game.openspiel.information_state_tensor_size()))
    missing = np.ones(game.num_infostates, dtype=bool)
    stack = [(game.openspiel.new_initial_state(), 0)]
    while stack:
        state, node = stack.pop()
        if state.is_terminal():
            continue
        if state.is_chance_node():
            steps = [(outcome, k) for k, (outcome, _) in enumerate(state.chance_outcomes())]
        else:
            row = game.node_row[node]
            if missing[row]:
                tensors[row] = state.information_state_tensor()
                missing[row] = False
            steps = [(action, action) for action in state.legal_actions()]
        stack.extend((state.child(move), int(game.child[node, step])) for move, step in steps)
    return tensors


class Exploitability:
    """Exploitability by OpenSpiel's own function, ``open_spiel.python.algorithms.exploitability``.

    Calling it with a policy of shape (I, A) gives chips per game: what a best responder wins on average over both
    seats, beyond the value of the game. NashConv, which for this kind of game is the duality gap, is twice that.

    Args:
        game: The listed game.
    """

    def __init__(self, game: ExtensiveGame) -> None:
        from open_spiel.python import policy as openspiel_policy
        from open_spiel.python.algorithms import exploitability

        self._game = game.openspiel
        self._function = exploitability
        self._policy = openspiel_policy.TabularPolicy(game.openspiel)
        found = {}
        for player, keys in enumerate(self._policy.states_per_player):
            found |= {(player, key): self._policy.state_lookup[key] for key in keys}
        self._rows = np.array(
            [found[int(p), key] for p, key in zip(game.infostate_player, game.keys, strict=True)], dtype=np.int64
        )

    def openspiel_policy(self, policy_IA: FloatArray) -> Any:
        """The policy in OpenSpiel's form; the same object at every call, with new probabilities."""
        self._policy.action_probability_array[self._rows] = policy_IA
        return self._policy

    def __call__(self, policy_IA: FloatArray) -> float:
        """Exploitability, chips per game."""
        return float(self._function.exploitability(self._game, self.openspiel_policy(policy_IA)))

    def nash_conv(self, policy_IA: FloatArray) -> float:
        """OpenSpiel's NashConv, chips per game."""
        value: Any = self._function.nash_conv(self._game, self.openspiel_policy(policy_IA))
        return float(value)


def policy_from_openspiel(game: ExtensiveGame, policy: Any) -> FloatArray:
    """A tabular policy of pyspiel as an array.

    Args:
        game: The listed game.
        policy: A pyspiel policy that answers ``get_state_policy`` for an information-state string.

    Returns:
        Shape (I, A).
    """
    table = np.zeros(game.legal.shape)
    for row, key in enumerate(game.keys):
        for action, probability in policy.get_state_policy(key):
            table[row, action] = probability
    return table
