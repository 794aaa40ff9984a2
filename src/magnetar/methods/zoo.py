"""Every method as one preset: the settings of its source, each open to change by name."""

import inspect
from collections.abc import Callable
from typing import Any

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.magnets import EveryNUpdates, FixedMagnet, MagnetSchedule
from magnetar.methods.method import Method
from magnetar.methods.objectives import (
    KLEstimator,
    MagneticPolicyGradient,
    Proximal,
    RewardTransformedPolicyGradient,
)
from magnetar.methods.opponents import Opponent

__all__ = ["METHODS", "build_method", "mirror_descent", "mmd", "mpo", "mpo_rt"]


def mpo(
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
    """Magnetic Preference Optimization: magnetic mirror descent whose magnet follows the policy.

    Args:
        step_size: η, positive.
        magnet_strength: α, positive, in units of win probability per nat.
        magnet_every: Updates between magnet moves (T of the paper); ignored when ``magnet`` is given.
        magnet: Another schedule.
        opponent: Own group (self-play) by default.
        proximal: See `Objective`.
        clip_range: See `Objective`.
        kl_estimator: See `Objective`.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game.

    Raises:
        ConfigError: A step size or strength that is not positive.

    Source: arXiv:2410.16714, Algorithm 1.
    """
    _require_positive_strength("mpo", magnet_strength)
    return Method(
        name="mpo",
        opponent=opponent or Opponent(),
        objective=MagneticPolicyGradient(step_size, magnet_strength, proximal, clip_range, kl_estimator),
        magnet=magnet or EveryNUpdates(magnet_every),
        converges_to=_limit_of(magnet),
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
        proximal: See `Objective`.
        clip_range: See `Objective`.
        kl_estimator: See `Objective`; here of the proximal term only.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game.

    Raises:
        ConfigError: A step size or strength that is not positive.

    Source: arXiv:2410.16714, Algorithm 2.
    """
    _require_positive_strength("mpo_rt", magnet_strength)
    return Method(
        name="mpo_rt",
        opponent=opponent or Opponent(),
        objective=RewardTransformedPolicyGradient(step_size, magnet_strength, proximal, clip_range, kl_estimator),
        magnet=magnet or EveryNUpdates(magnet_every),
        converges_to=_limit_of(magnet),
        source="arXiv:2410.16714, Algorithm 2",
    )


def mmd(
    step_size: float = 1.0,
    magnet_strength: float = 0.1,
    *,
    opponent: Opponent | None = None,
    proximal: Proximal = "kl",
    clip_range: float = 0.2,
    kl_estimator: KLEstimator = "sampled",
) -> Method:
    """Magnetic mirror descent with a magnet that never moves.

    Args:
        step_size: η, positive.
        magnet_strength: α, positive, in units of win probability per nat.
        opponent: Own group (self-play) by default.
        proximal: See `Objective`.
        clip_range: See `Objective`.
        kl_estimator: See `Objective`.

    Returns:
        The method. Its last iterate reaches the equilibrium of the game regularised towards where training started.

    Raises:
        ConfigError: A step size or strength that is not positive.

    Source: arXiv:2206.05825.
    """
    _require_positive_strength("mmd", magnet_strength)
    return Method(
        name="mmd",
        opponent=opponent or Opponent(),
        objective=MagneticPolicyGradient(step_size, magnet_strength, proximal, clip_range, kl_estimator),
        magnet=FixedMagnet(),
        converges_to="regularised equilibrium",
        source="arXiv:2206.05825",
    )


def mirror_descent(
    step_size: float = 0.1,
    *,
    opponent: Opponent | None = None,
    proximal: Proximal = "kl",
    clip_range: float = 0.2,
    kl_estimator: KLEstimator = "sampled",
) -> Method:
    """Plain self-play: mirror descent (multiplicative weights), no magnet.

    Args:
        step_size: η, positive.
        opponent: Own group (self-play) by default.
        proximal: See `Objective`.
        clip_range: See `Objective`.
        kl_estimator: See `Objective`.

    Returns:
        The method. Only the average of its iterates converges; the last one circles the equilibrium.

    Raises:
        ConfigError: A step size that is not positive.

    Source: arXiv:2401.04056 (SPO).
    """
    return Method(
        name="mirror_descent",
        opponent=opponent or Opponent(),
        objective=MagneticPolicyGradient(step_size, 0.0, proximal, clip_range, kl_estimator),
        magnet=FixedMagnet(),
        converges_to="average only",
        source="arXiv:2401.04056",
    )


METHODS: dict[str, Callable[..., Method]] = {"mpo": mpo, "mpo_rt": mpo_rt, "mmd": mmd, "mirror_descent": mirror_descent}
"""Every method by its name."""


def build_method(name: str, **settings: Any) -> Method:
    """Make a method from its name; a setting of None keeps the preset.

    Args:
        name: A key of `METHODS`.
        **settings: Arguments of that method's function.

    Returns:
        The method.

    Raises:
        ConfigError: Unknown method, or a setting that this method does not have.
    """
    if name not in METHODS:
        raise ConfigError(unknown_name("method", name, METHODS))
    given = {key: value for key, value in settings.items() if value is not None}
    accepted = inspect.signature(METHODS[name]).parameters
    for key in given:
        if key not in accepted:
            owners = [other for other, make in METHODS.items() if key in inspect.signature(make).parameters]
            known = f"it belongs to {', '.join(owners)}" if owners else f"known: {', '.join(accepted)}"
            raise ConfigError(f"method {name!r} has no setting {key!r}; {known}. Remove it or choose another method")
    return METHODS[name](**given)


def _limit_of(magnet: MagnetSchedule | None) -> str:
    return "regularised equilibrium" if isinstance(magnet, FixedMagnet) else "original equilibrium"


def _require_positive_strength(method: str, magnet_strength: float) -> None:
    if not magnet_strength > 0:
        raise ConfigError(
            f"magnet_strength is {magnet_strength}, expected a positive number for {method} (α, for instance 0.1); "
            "for no magnet use method 'mirror_descent'"
        )
