"""Methods that stay near a fixed reference: they solve the regularised game."""

from numbers import Real

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.magnets import FixedMagnet
from magnetar.methods.method import Method
from magnetar.methods.objectives import (
    KLEstimator,
    PairwiseRegression,
    Proximal,
    RegressionTarget,
    RewardTransformedPolicyGradient,
)
from magnetar.methods.opponents import Opponent
from magnetar.methods.zoo.magnetic import (
    MAGNETIC_LOSSES,
    MagneticLoss,
    limit_against,
    require_positive_strength,
    require_step_within_pull,
)

__all__ = ["egpo", "inpo", "nash_md", "nash_md_pg", "omd", "online_ipo"]


def omd(
    step_size: float = 0.3,
    magnet_strength: float = 0.1,
    *,
    opponent: Opponent | None = None,
    proximal: Proximal = "kl",
    clip_range: float = 0.2,
    kl_estimator: KLEstimator = "sampled",
) -> Method:
    """Online mirror descent on the regularised game (online IPO 1): MPO-RT with a magnet that never moves.

    Args:
        step_size: η, positive.
        magnet_strength: β, the pull of the reference, positive, in units of win probability per nat.
        opponent: Own group (self-play) by default.
        proximal: See `PolicyGradient`.
        clip_range: See `PolicyGradient`.
        kl_estimator: See `PolicyGradient`; of the proximal term.

    Returns:
        The method. Its last iterate reaches the equilibrium of the regularised game if ``η ≤ 4β``, about.

    Raises:
        ConfigError: A step size or strength that is not positive, or a product above 1.

    Source: arXiv:2403.08635; arXiv:2503.08942, "online IPO 1 (OMD)".
    """
    require_positive_strength("omd", magnet_strength)
    require_step_within_pull("omd", step_size, magnet_strength)
    return Method(
        name="omd",
        opponent=opponent or Opponent(),
        objective=RewardTransformedPolicyGradient(step_size, magnet_strength, proximal, clip_range, kl_estimator),
        magnet=FixedMagnet(),
        converges_to=limit_against(opponent, "regularised equilibrium"),
        source="arXiv:2403.08635; arXiv:2503.08942",
    )


def nash_md(step_size: float = 0.3, magnet_strength: float = 0.1) -> Method:
    """Nash mirror descent: both the base and the opponent of an update are the mixture of policy and reference.

    With a constant step the fixed point is one update away from the equilibrium of strength ``β/(1 − ηβ)``, which the
    mixture reaches exactly.

    Args:
        step_size: η, positive, at most 1/β.
        magnet_strength: β, the pull of the reference, positive, in units of win probability per nat.

    Returns:
        The method. Its last iterate reaches the equilibrium of the regularised game, up to the size of ηβ.

    Raises:
        ConfigError: A step size or strength that is not positive, or a product above 1.

    Source: arXiv:2312.00886, theorem 1.
    """
    require_positive_strength("nash_md", magnet_strength)
    require_step_within_pull("nash_md", step_size, magnet_strength)
    objective = RewardTransformedPolicyGradient(step_size, magnet_strength)
    return Method(
        name="nash_md",
        opponent=Opponent("mixture", reference_weight=step_size * magnet_strength),
        objective=objective,
        magnet=FixedMagnet(),
        converges_to="regularised equilibrium",
        source="arXiv:2312.00886, theorem 1",
    )


def nash_md_pg(
    step_size: float = 1.0,
    magnet_strength: float = 0.1,
    reference_weight: float = 0.125,
    *,
    proximal: Proximal = "kl",
    clip_range: float = 0.2,
    kl_estimator: KLEstimator = "sampled",
) -> Method:
    """Nash-MD by policy gradient: the mixture's weight is a setting of its own, the base of an update the policy.

    Args:
        step_size: η, positive.
        magnet_strength: β, the pull of the reference, positive, in units of win probability per nat.
        reference_weight: Weight of the reference in the mixture that plays the opponent, in [0, 1); 0 is self-play.
        proximal: See `PolicyGradient`.
        clip_range: See `PolicyGradient`.
        kl_estimator: See `PolicyGradient`; of the proximal term.

    Returns:
        The method. With weight m its fixed point is the regularised best response to the mixture, and the mixture is
        the equilibrium of the game regularised with strength ``β/(1 − m)``.

    Raises:
        ConfigError: A step size or strength that is not positive, a product above 1, or a weight outside [0, 1).

    Source: arXiv:2312.00886, section 7 (Nash-MD-PG).
    """
    require_positive_strength("nash_md_pg", magnet_strength)
    require_step_within_pull("nash_md_pg", step_size, magnet_strength)
    if not isinstance(reference_weight, Real) or not 0 <= reference_weight < 1:
        raise ConfigError(
            f"reference_weight is {reference_weight!r}, expected a number in [0, 1) (for instance 0.125); an opponent "
            "that is the reference alone is opponent='reference' of method 'omd'"
        )
    return Method(
        name="nash_md_pg",
        opponent=Opponent("mixture", reference_weight) if reference_weight else Opponent(),
        objective=RewardTransformedPolicyGradient(step_size, magnet_strength, proximal, clip_range, kl_estimator),
        magnet=FixedMagnet(),
        converges_to="regularised equilibrium",
        source="arXiv:2312.00886, section 7",
    )


def egpo(step_size: float = 1.0, magnet_strength: float = 0.1, *, loss: MagneticLoss = "policy_gradient") -> Method:
    """Extragradient preference optimization: online mirror descent on the payoffs of the next policy.

    Args:
        step_size: η, positive.
        magnet_strength: β, the pull of the reference, positive, in units of win probability per nat.
        loss: On language models: "policy_gradient", or the "regression" of the paper, whose minimiser is a step of
            η = 1/β, so that the learning rate alone sets the step.

    Returns:
        The method. Its last iterate reaches the equilibrium of the regularised game; two evaluations an update.

    Raises:
        ConfigError: A step size or strength that is not positive, or a product above 1.

    Source: arXiv:2503.08942, algorithm 1.
    """
    require_positive_strength("egpo", magnet_strength)
    require_step_within_pull("egpo", step_size, magnet_strength)
    if loss not in MAGNETIC_LOSSES:
        raise ConfigError(unknown_name("loss", loss, MAGNETIC_LOSSES))
    regression = PairwiseRegression(1.0, scale=1.0 / magnet_strength, target="payoff")
    return Method(
        name="egpo",
        opponent=Opponent(),
        objective=regression if loss == "regression" else RewardTransformedPolicyGradient(step_size, magnet_strength),
        magnet=FixedMagnet(),
        converges_to="regularised equilibrium",
        source="arXiv:2503.08942, algorithm 1",
        prediction="extragradient",
    )


def inpo(step_size: float = 0.3, magnet_strength: float = 0.1, *, hard_labels: bool = False) -> Method:
    """Iterative Nash policy optimization: pairs of a group regressed on their own preference.

    Args:
        step_size: η of this library, one over the paper's η; positive.
        magnet_strength: τ of the paper, the pull of the reference, positive, in units of win probability per nat.
        hard_labels: Whether a pair's target is its winner instead of its win probability, as where an annotator only
            names the better response.

    Returns:
        The method. With soft labels its exact update is online mirror descent's on the regularised game.

    Raises:
        ConfigError: A step size or strength that is not positive, or a product above 1.

    Source: arXiv:2407.00617, equation 8.
    """
    require_positive_strength("inpo", magnet_strength)
    require_step_within_pull("inpo", step_size, magnet_strength)
    return Method(
        name="inpo",
        opponent=Opponent(),
        objective=PairwiseRegression(
            step_size * magnet_strength, scale=step_size, target="winner" if hard_labels else "pair"
        ),
        magnet=FixedMagnet(),
        converges_to="regularised equilibrium",
        source="arXiv:2407.00617, equation 8",
    )


def online_ipo(magnet_strength: float = 0.1, *, target: RegressionTarget = "pair") -> Method:
    """Online IPO: log-ratios to the reference regressed on payoffs, without staying near the behaviour policy.

    Args:
        magnet_strength: β, the pull of the reference, positive, in units of win probability per nat.
        target: "pair" regresses pairs on their own preference (the paper's online IPO 2), "payoff" on the difference of
            their payoffs (online IPO 1, whose published gradient is that of `omd`), "winner" on who wins.

    Returns:
        The method. Its exact update is the regularised best response to the current policy. Its only fixed point is the
        equilibrium of the regularised game, which exact updates reach for a large β and circle for a small one; single
        gradient steps, which are what language models take, are gentler and have no theorem.

    Raises:
        ConfigError: A strength that is not positive.

    Source: arXiv:2403.08635; arXiv:2503.08942, "online IPO 2".
    """
    require_positive_strength("online_ipo", magnet_strength)
    return Method(
        name="online_ipo",
        opponent=Opponent(),
        objective=PairwiseRegression(1.0, scale=1.0 / magnet_strength, target=target),
        magnet=FixedMagnet(),
        converges_to="nothing known",
        source="arXiv:2403.08635; arXiv:2503.08942",
    )
