"""Methods of this library: magnets that move when it pays, steps that set their own size."""

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.magnets import AdaptiveMagnet, FixedMagnet
from magnetar.methods.method import Method
from magnetar.methods.objectives import AdaptiveMagneticDescent, Geometry, MagneticPolicyGradient, Recall
from magnetar.methods.opponents import Opponent
from magnetar.methods.zoo.magnetic import require_positive_strength

__all__ = ["mpo_adaptive", "mpo_optimistic", "mpo_recall"]

SOURCE = "this library"

# Found once, by random search on a third of a suite of games, and confirmed on the rest: docs/fastest.md.
RULES = {
    "euclidean": AdaptiveMagneticDescent(),
    "entropic": AdaptiveMagneticDescent(
        geometry="entropic",
        anchored=False,
        shrink=0.381,
        shrink_rising=0.64,
        longest_share=0.6,
        safety=0.5,
        growth=1.5,
        first_step=24.2,
    ),
}


def mpo_optimistic(step_size: float = 2.0, magnet_strength: float = 0.005, shrink: float = 0.1) -> Method:
    """MPO from ordinary parts: optimistic steps of magnetic mirror descent, a magnet that moves when steps are short.

    Args:
        step_size: η, positive.
        magnet_strength: α, positive, in units of win probability per nat.
        shrink: Length of a step beside the first since the last move at which the magnet moves, in (0, 1).

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game.

    Raises:
        ConfigError: A setting outside its range.

    Source: of this library, from arXiv:2410.16714 and arXiv:2006.09517.
    """
    require_positive_strength("mpo_optimistic", magnet_strength)
    return Method(
        name="mpo_optimistic",
        opponent=Opponent(),
        objective=MagneticPolicyGradient(step_size, magnet_strength),
        magnet=AdaptiveMagnet(shrink),
        converges_to="original equilibrium",
        source=SOURCE,
        prediction="optimistic",
    )


def mpo_adaptive(geometry: Geometry = "euclidean") -> Method:
    """MPO without settings: optimistic magnetic descent that sets its step size and moves its magnet by its gap.

    Args:
        geometry: "euclidean" needs fewer evaluations on games; "entropic" works on log-probabilities, as language
            models do.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game.

    Raises:
        ConfigError: Unknown geometry.

    Source: of this library; see `AdaptiveMagneticDescent`.
    """
    if geometry not in RULES:
        raise ConfigError(unknown_name("geometry", geometry, RULES))
    return Method(
        name="mpo_adaptive",
        opponent=Opponent(),
        objective=RULES[geometry],
        magnet=FixedMagnet(),
        converges_to="original equilibrium",
        source=SOURCE,
    )


def mpo_recall(proximal_scale: float = 0.3) -> Method:
    """MPO with recall: proximal steps on a model of the game that fits every payoff evaluated so far.

    Args:
        proximal_scale: κ, the pull of the magnet in units of its gap, positive; anything between 0.1 and 1 does.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game, on every game tried to a gap of 1e-6
        in at most A evaluations; it remembers all evaluated policies.

    Raises:
        ConfigError: A scale that is not positive.

    Source: of this library; see `Recall`.
    """
    return Method(
        name="mpo_recall",
        opponent=Opponent(),
        objective=Recall(proximal_scale),
        magnet=FixedMagnet(),
        converges_to="original equilibrium",
        source=SOURCE,
    )
