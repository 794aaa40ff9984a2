"""How far a policy is from equilibrium, as functions of its payoffs; the game supplies the payoffs."""

import numpy as np
from numpy.typing import NDArray

from magnetar.methods.objectives.base import GAME_VALUE
from magnetar.numerics import log_normalize, log_probabilities

__all__ = ["duality_gap", "kl_divergence", "log_probabilities", "regularized_gap", "regularized_response"]

FloatArray = NDArray[np.float64]


def duality_gap(payoff_A: FloatArray) -> float:
    r"""Duality gap of the policy that earns these payoffs.

    ``gap(π) = max_π1 V(π1, π) − min_π2 V(π, π2) = 2 (max_y q_y(π) − 1/2)``, by the game's symmetry.

    Args:
        payoff_A: q(π), what each action wins against the policy, shape (A,), in [0, 1].

    Returns:
        In [0, 1]; zero only at an equilibrium. The true value is never negative, rounding below zero is cut off.
    """
    return max(0.0, 2.0 * (float(payoff_A.max()) - GAME_VALUE))


def kl_divergence(log_policy_A: FloatArray, log_other_A: FloatArray) -> float:
    r"""``KL(π‖π') = Σ_y π_y log(π_y/π'_y)`` of two normalised distributions, accurate near zero.

    Summed as ``Σ_y π_y (d_y − 1 + e^{−d_y})`` with ``d = log(π/π')``: the same value, but no term is negative, so two
    nearly equal distributions do not lose their difference to cancellation.

    Args:
        log_policy_A: log π, shape (A,), nats, normalised; -inf for probability zero.
        log_other_A: log π', same form.

    Returns:
        Nats, at least 0; inf where π has mass on an action that π' excludes.
    """
    policy, other = np.exp(log_policy_A), np.exp(log_other_A)
    with np.errstate(invalid="ignore", over="ignore"):
        d = log_policy_A - log_other_A
        near = policy * (d + np.expm1(-d))
        far = policy * (d - 1.0) + other
    terms = np.where(policy > 0, np.where(np.abs(d) < 1.0, near, far), other)
    return float(terms.sum())


def regularized_response(payoff_A: FloatArray, log_magnet_A: FloatArray, strength: float) -> FloatArray:
    """Best response in the KL-regularised game, ``π̂ ∝ ρ exp(q/α)``, as log-probabilities.

    Args:
        payoff_A: q, shape (A,), in [0, 1].
        log_magnet_A: log ρ, shape (A,), nats; -inf for probability zero.
        strength: α, positive, in units of win probability per nat.

    Returns:
        Shape (A,), nats, normalised.
    """
    best = payoff_A[~np.isneginf(log_magnet_A)].max()
    with np.errstate(over="ignore"):  # a strength near zero sends all but the best to probability zero
        advantage = np.minimum(payoff_A - best, 0.0) / strength
    return log_normalize(log_magnet_A + advantage)


def regularized_gap(log_policy_A: FloatArray, payoff_A: FloatArray, log_magnet_A: FloatArray, strength: float) -> float:
    r"""Duality gap in the game regularised towards a magnet.

    ``gap_α(π) = 2 (α log Σ_y ρ_y exp(q_y(π)/α) + α KL(π‖ρ)) − 1``. Since ``Σ_y π_y q_y(π) = 1/2`` this is
    ``2α KL(π‖π̂)`` with the regularised best response ``π̂ ∝ ρ exp(q(π)/α)``, the form computed here: it keeps its
    accuracy near zero.

    Args:
        log_policy_A: log π, shape (A,), nats, normalised.
        payoff_A: q(π), shape (A,), in [0, 1].
        log_magnet_A: log ρ, shape (A,), nats, normalised.
        strength: α, positive, in units of win probability per nat.

    Returns:
        At least 0, zero only at the regularised equilibrium; inf where π has mass and the magnet has none.
    """
    return 2.0 * strength * kl_divergence(log_policy_A, regularized_response(payoff_A, log_magnet_A, strength))
