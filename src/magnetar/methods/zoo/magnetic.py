"""Methods with a magnet: MPO in its two forms, and its parent with a magnet that never moves."""

from numbers import Real
from typing import Literal

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.magnets import EveryNUpdates, FixedMagnet, MagnetSchedule
from magnetar.methods.method import ConvergesTo, Method
from magnetar.methods.objectives import (
    KLEstimator,
    MagneticPolicyGradient,
    PairwiseRegression,
    Proximal,
    RewardTransformedPolicyGradient,
    SampledObjective,
)
from magnetar.methods.opponents import Opponent

__all__ = [
    "MAGNETIC_LOSSES",
    "MagneticLoss",
    "limit_against",
    "mmd",
    "mpo",
    "mpo_rt",
    "require_positive_strength",
    "require_step_within_pull",
]

MagneticLoss = Literal["policy_gradient", "regression"]
MAGNETIC_LOSSES: tuple[MagneticLoss, ...] = ("policy_gradient", "regression")


def mpo(
    step_size: float = 1.0,
    magnet_strength: float = 0.1,
    magnet_every: int = 10,
    *,
    magnet: MagnetSchedule | None = None,
    opponent: Opponent | None = None,
    loss: MagneticLoss = "policy_gradient",
    proximal: Proximal = "kl",
    clip_range: float = 0.2,
    kl_estimator: KLEstimator = "sampled",
) -> Method:
    """Magnetic Preference Optimization: magnetic mirror descent whose magnet follows the policy.

    Args:
        step_size: η, positive.
        magnet_strength: α, positive, in units of win probability per nat.
        magnet_every: Updates between magnet moves (T of the paper); ignored when ``magnet`` is given.
        magnet: Another schedule.
        opponent: Own group (self-play) by default.
        loss: How responses teach the update: "policy_gradient", or "regression" of log-ratios on payoffs, whose
            minimiser is the same; the settings below are the policy gradient's.
        proximal: See `PolicyGradient`.
        clip_range: See `PolicyGradient`.
        kl_estimator: See `PolicyGradient`.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game.

    Raises:
        ConfigError: A step size or strength that is not positive.

    Source: arXiv:2410.16714, Algorithm 1.
    """
    require_positive_strength("mpo", magnet_strength)
    return Method(
        name="mpo",
        opponent=opponent or Opponent(),
        objective=_magnetic_objective(loss, step_size, magnet_strength, opponent, proximal, clip_range, kl_estimator),
        magnet=magnet or EveryNUpdates(magnet_every),
        converges_to=_limit_of(magnet, opponent),
        source="arXiv:2410.16714, Algorithm 1",
    )


def mpo_rt(
    step_size: float = 1.0,
    magnet_strength: float = 0.1,
    magnet_every: int = 10,
    *,
    magnet: MagnetSchedule | None = None,
    opponent: Opponent | None = None,
    proximal: Proximal = "kl",
    clip_range: float = 0.2,
    kl_estimator: KLEstimator = "sampled",
) -> Method:
    """MPO with reward transformation: the magnet's pull is part of the reward, not of the loss.

    Args:
        step_size: η, positive.
        magnet_strength: α, positive, in units of win probability per nat.
        magnet_every: Updates between magnet moves; ignored when ``magnet`` is given.
        magnet: Another schedule.
        opponent: Own group (self-play) by default.
        proximal: See `PolicyGradient`.
        clip_range: See `PolicyGradient`.
        kl_estimator: See `PolicyGradient`; here of the proximal term only.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game.

    Raises:
        ConfigError: A step size or strength that is not positive.

    Source: arXiv:2410.16714, Algorithm 2.
    """
    require_positive_strength("mpo_rt", magnet_strength)
    require_step_within_pull("mpo_rt", step_size, magnet_strength)
    return Method(
        name="mpo_rt",
        opponent=opponent or Opponent(),
        objective=RewardTransformedPolicyGradient(step_size, magnet_strength, proximal, clip_range, kl_estimator),
        magnet=magnet or EveryNUpdates(magnet_every),
        converges_to=_limit_of(magnet, opponent),
        source="arXiv:2410.16714, Algorithm 2",
    )


def mmd(
    step_size: float = 1.0,
    magnet_strength: float = 0.1,
    *,
    opponent: Opponent | None = None,
    loss: MagneticLoss = "policy_gradient",
    proximal: Proximal = "kl",
    clip_range: float = 0.2,
    kl_estimator: KLEstimator = "sampled",
) -> Method:
    """Magnetic mirror descent with a magnet that never moves.

    Args:
        step_size: η, positive.
        magnet_strength: α, positive, in units of win probability per nat.
        opponent: Own group (self-play) by default.
        loss: How responses teach the update: "policy_gradient", or "regression" of log-ratios on payoffs, whose
            minimiser is the same; the settings below are the policy gradient's.
        proximal: See `PolicyGradient`.
        clip_range: See `PolicyGradient`.
        kl_estimator: See `PolicyGradient`.

    Returns:
        The method. Its last iterate reaches the equilibrium of the game regularised towards where training started.

    Raises:
        ConfigError: A step size or strength that is not positive.

    Source: arXiv:2206.05825, theorem 3.4.
    """
    require_positive_strength("mmd", magnet_strength)
    return Method(
        name="mmd",
        opponent=opponent or Opponent(),
        objective=_magnetic_objective(loss, step_size, magnet_strength, opponent, proximal, clip_range, kl_estimator),
        magnet=FixedMagnet(),
        converges_to=limit_against(opponent, "regularised equilibrium"),
        source="arXiv:2206.05825, theorem 3.4",
    )


def _magnetic_objective(
    loss: MagneticLoss,
    step_size: float,
    magnet_strength: float,
    opponent: Opponent | None,
    proximal: Proximal,
    clip_range: float,
    kl_estimator: KLEstimator,
) -> SampledObjective:
    """Magnetic mirror descent's update, in the form that is asked for."""
    policy_gradient = MagneticPolicyGradient(step_size, magnet_strength, proximal, clip_range, kl_estimator)
    if loss == "policy_gradient":
        return policy_gradient
    if loss != "regression":
        raise ConfigError(unknown_name("loss", loss, MAGNETIC_LOSSES))
    if policy_gradient != MagneticPolicyGradient(step_size, magnet_strength):
        raise ConfigError(
            "proximal, clip_range and kl_estimator belong to loss='policy_gradient'; loss='regression' stays near the "
            "behaviour policy by its target, so remove them"
        )
    # In self-play a pair's own preference and the group's payoffs have the same gradient, but for a factor
    # (G − 1)/G by which payoffs that count the pair itself would be too large.
    own_group = opponent is None or opponent.is_self_play
    pull = step_size * magnet_strength
    return PairwiseRegression(pull / (1 + pull), step_size / (1 + pull), "pair" if own_group else "payoff")


def limit_against(opponent: Opponent | None, in_self_play: ConvergesTo) -> ConvergesTo:
    """What the last iterate reaches against an opponent, given what it reaches in self-play."""
    if opponent is None or opponent.is_self_play:
        return in_self_play
    return "best response to the reference" if opponent.role == "reference" else "nothing known"


def _limit_of(magnet: MagnetSchedule | None, opponent: Opponent | None) -> ConvergesTo:
    fixed = isinstance(magnet, FixedMagnet)
    return limit_against(opponent, "regularised equilibrium" if fixed else "original equilibrium")


def require_positive_strength(method: str, magnet_strength: float) -> None:
    """Refuse a magnet that does not pull.

    Raises:
        ConfigError: Names the method that has none.
    """
    if not isinstance(magnet_strength, Real) or not magnet_strength > 0:
        raise ConfigError(
            f"magnet_strength is {magnet_strength!r}, expected a positive number for {method} (α, for instance 0.1); "
            "for no magnet use method 'mirror_descent'"
        )


def require_step_within_pull(method: str, step_size: float, magnet_strength: float) -> None:
    """Refuse explicit steps past the magnet: with ηα > 1 the policy's own weight, 1 − ηα, is negative.

    Raises:
        ConfigError: Names the largest step size.
    """
    if isinstance(step_size, Real) and step_size * magnet_strength > 1:
        raise ConfigError(
            f"step_size is {step_size} with magnet_strength {magnet_strength}, expected a product of at most 1: "
            f"{method} would step past its magnet and back; use a step_size of at most {1 / magnet_strength:g}"
        )
