"""Methods for the original game without a magnet: plain self-play and its optimistic, Euclidean and other relatives."""

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.magnets import FixedMagnet
from magnetar.methods.method import Method
from magnetar.methods.objectives import (
    AdaptiveSubgradient,
    HamiltonianDescent,
    KLEstimator,
    MagneticPolicyGradient,
    PairwiseRegression,
    PointwiseRegression,
    ProjectedGradient,
    Proximal,
)
from magnetar.methods.opponents import Opponent
from magnetar.methods.zoo.magnetic import MAGNETIC_LOSSES, MagneticLoss, limit_against

__all__ = ["adagrad_norm", "extragradient", "hamiltonian", "mirror_descent", "ogda", "omwu", "sppo"]


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
        proximal: See `PolicyGradient`.
        clip_range: See `PolicyGradient`.
        kl_estimator: See `PolicyGradient`.

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
        converges_to=limit_against(opponent, "average only"),
        source="arXiv:2401.04056",
    )


def sppo(step_size: float = 0.1, *, opponent: Opponent | None = None) -> Method:
    """Self-play preference optimization: each response's log-ratio is regressed on its payoff.

    Args:
        step_size: η, positive.
        opponent: Own group (self-play) by default.

    Returns:
        The method. Its exact update is mirror descent's, so only the average of its iterates converges.

    Raises:
        ConfigError: A step size that is not positive.

    Source: arXiv:2405.00675, theorem 4.1.
    """
    return Method(
        name="sppo",
        opponent=opponent or Opponent(),
        objective=PointwiseRegression(step_size),
        magnet=FixedMagnet(),
        converges_to=limit_against(opponent, "average only"),
        source="arXiv:2405.00675, theorem 4.1",
    )


def omwu(step_size: float = 0.25, *, loss: MagneticLoss = "policy_gradient") -> Method:
    """Optimistic multiplicative weights (ONPO): mirror descent on payoffs extrapolated by one update.

    Args:
        step_size: η, positive. The theory's 1/8 is for payoffs in [-1, 1]; win probabilities span half of that.
        loss: On language models: "policy_gradient", or "regression" of log-ratios on pairs, as ONPO does; both have
            the same minimiser.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game where that is unique and η is small.

    Raises:
        ConfigError: A step size that is not positive, or an unknown loss.

    Source: arXiv:2006.09517, theorem 3; for preference games arXiv:2502.16852.
    """
    if loss not in MAGNETIC_LOSSES:
        raise ConfigError(unknown_name("loss", loss, MAGNETIC_LOSSES))
    regression = PairwiseRegression(0.0, scale=step_size, target="pair")
    return Method(
        name="omwu",
        opponent=Opponent(),
        objective=regression if loss == "regression" else MagneticPolicyGradient(step_size),
        magnet=FixedMagnet(),
        converges_to="original equilibrium",
        source="arXiv:2006.09517, theorem 3; arXiv:2502.16852",
        prediction="optimistic",
    )


def extragradient(step_size: float = 0.25) -> Method:
    """Extragradient in entropic geometry on the original game: mirror descent on the payoffs of the next policy.

    Args:
        step_size: η, positive.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game; two evaluations an update.

    Raises:
        ConfigError: A step size that is not positive.

    Source: Korpelevich (1976); in entropic geometry arXiv:2105.15186.
    """
    return Method(
        name="extragradient",
        opponent=Opponent(),
        objective=MagneticPolicyGradient(step_size),
        magnet=FixedMagnet(),
        converges_to="original equilibrium",
        source="arXiv:2105.15186; Korpelevich (1976)",
        prediction="extragradient",
    )


def ogda(step_size: float = 0.25) -> Method:
    """Optimistic gradient descent–ascent: projected gradient steps on the payoffs extrapolated by one update.

    Args:
        step_size: η, positive; below 1/(2L) with L the largest singular value of P − 1/2, or it goes round.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game.

    Raises:
        ConfigError: A step size that is not positive.

    Source: arXiv:2006.09517; the form with one sequence of policies arXiv:1808.04162.
    """
    return Method(
        name="ogda",
        opponent=Opponent(),
        objective=ProjectedGradient(step_size),
        magnet=FixedMagnet(),
        converges_to="original equilibrium",
        source="arXiv:2006.09517; arXiv:1808.04162",
        prediction="optimistic",
    )


def hamiltonian(step_size: float = 10.0) -> Method:
    """Hamiltonian gradient descent: descend the squared norm of the game's gradient in softmax logits.

    Args:
        step_size: η, positive.

    Returns:
        The method. Its last iterate reaches equilibria of full support; elsewhere it can stall. Two evaluations an
        update.

    Raises:
        ConfigError: A step size that is not positive.

    Source: arXiv:1906.02027.
    """
    return Method(
        name="hamiltonian",
        opponent=Opponent(),
        objective=HamiltonianDescent(step_size),
        magnet=FixedMagnet(),
        converges_to="original equilibrium",
        source="arXiv:1906.02027",
    )


def adagrad_norm(step_size: float = 0.5) -> Method:
    """AdaGrad-Norm: projected subgradients of what a best response wins, with one adaptive step size.

    Args:
        step_size: η, the length of the first step in probability; positive.

    Returns:
        The method. Its last iterate reaches the equilibrium of the original game, slowly; two evaluations an update.

    Raises:
        ConfigError: A step size that is not positive.

    Source: arXiv:2604.10728.
    """
    return Method(
        name="adagrad_norm",
        opponent=Opponent(),
        objective=AdaptiveSubgradient(step_size),
        magnet=FixedMagnet(),
        converges_to="original equilibrium",
        source="arXiv:2604.10728",
    )
