"""The game that a method plays when some preferences are flipped or poisoned: the mean over annotators who lie."""

from magnetar.errors import GameError
from magnetar.games.checks import number_or_nan
from magnetar.games.game import PreferenceGame

__all__ = ["flipped_game", "poisoned_game"]


def flipped_game(game: PreferenceGame, share: float) -> PreferenceGame:
    r"""The game whose answers are turned round, each with the same probability.

    ``P'_ij = (1 − ε) P_ij + ε (1 − P_ij) = (1 − 2 ε) P_ij + ε``

    All preferences shrink towards 1/2 alike, so that equilibria stay where they are, duality gaps are ``1 − 2 ε`` times
    as large, and a magnet pulls ``1 / (1 − 2 ε)`` times as hard. At ε = 1/2 nothing is left, and beyond it the game is
    turned round.

    Args:
        game: The game without lies.
        share: ε, in [0, 1].

    Returns:
        A game of the same actions.

    Raises:
        GameError: The share is outside [0, 1].
    """
    epsilon = _checked(share)
    return PreferenceGame((1.0 - 2.0 * epsilon) * game.P + epsilon, game.actions, f"{game.name}, {epsilon:g} flipped")


def poisoned_game(game: PreferenceGame, target: int, share: float) -> PreferenceGame:
    r"""The game on prompts with a trigger, of whose comparisons an attacker answers a share, always for one response.

    ``P'_tj = (1 − s) P_tj + s`` for the target t and every other response j; all other entries stay.

    The target is the equilibrium as soon as it loses to nobody, for ``s ≥ max_j (1/2 − P_tj) / (1 − P_tj)``: less than
    one half, however bad it is.

    Args:
        game: The game without lies.
        target: t, the response that the attacker wants, from 0 to A − 1.
        share: s, in [0, 1].

    Returns:
        A game of the same actions.

    Raises:
        GameError: There is no such response, or the share is outside [0, 1].
    """
    s = _checked(share)
    if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < game.num_actions:
        raise GameError(f"target is {target!r}, expected the number of a response, 0 to {game.num_actions - 1}")
    win_prob_AA = game.P.copy()
    win_prob_AA[target] = (1.0 - s) * win_prob_AA[target] + s
    win_prob_AA[:, target] = 1.0 - win_prob_AA[target]
    win_prob_AA[target, target] = 0.5
    return PreferenceGame(win_prob_AA, game.actions, f"{game.name}, {s:g} poisoned")


def _checked(share: float) -> float:
    number = number_or_nan(share)
    if not 0.0 <= number <= 1.0:
        raise GameError(f"share is {share!r}, expected a share of the answers, from 0 to 1")
    return number
