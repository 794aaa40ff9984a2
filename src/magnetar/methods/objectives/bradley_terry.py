"""Scores fitted to preferences, and the policy that maximises them: what reward-based alignment aims at."""

from dataclasses import dataclass

import numpy as np

from magnetar.methods.objectives.base import FloatArray, OracleObjective, PayoffOracle, check_positive
from magnetar.numerics import tilt

__all__ = ["BradleyTerryFit", "fit_bradley_terry"]

CERTAIN = 1e-6  # win probabilities are held this far from 0 and 1: no finite scores fit certainty
SMALLEST_KL_COEF = 1e-300  # its inverse is still a number
NEWTON_STEPS = 200
NEWTON_TOLERANCE = 1e-12  # largest change of a score in logits
LARGEST_NEWTON_STEP = 2.0  # logits; farther away the quadratic model is not to be trusted


@dataclass(frozen=True)
class BradleyTerryFit(OracleObjective):
    r"""Fit scores to all preferences by maximum likelihood, then take the KL-regularised best policy for them.

    ``s = argmax Σ_ij w_i w_j P_ij log σ(s_i − s_j)``, ``π ∝ ref exp(s/β)``. With w the reference policy this is reward
    modelling followed by its ideal policy optimisation (arXiv:2203.02155); with w the current policy it would be
    iterative DPO (`DirectPreference`).
    Scores cannot express a cycle: in a game with one, no number of updates reaches the equilibrium.

    Attributes:
        kl_coef: β, the weight of KL(π‖ref), in logits per nat; positive.
    """

    kl_coef: float

    def __post_init__(self) -> None:
        check_positive(kl_coef=self.kl_coef)

    def initial_state(self, log_policy_A: FloatArray) -> None:
        """Nothing to remember."""
        del log_policy_A

    def exact_step(
        self,
        oracle: PayoffOracle,
        log_policy_A: FloatArray,
        log_reference_A: FloatArray,
        state: None,
    ) -> tuple[FloatArray, None]:
        """See `OracleObjective.exact_step`; there is no state."""
        del state
        score = fit_bradley_terry(oracle.win_prob(), np.exp(log_reference_A))
        return tilt(log_reference_A, score, 1.0 / max(self.kl_coef, SMALLEST_KL_COEF)), None


def fit_bradley_terry(win_prob_AA: FloatArray, weight_A: FloatArray) -> FloatArray:
    r"""Maximum-likelihood scores under pairs drawn from a policy, by damped Newton.

    Maximises ``Σ_ij w_i w_j P_ij log σ(s_i − s_j)``. Each row of the stationarity condition is divided by its weight,
    so that actions hardly ever drawn get their score too, as the limit of drawing them.

    Args:
        win_prob_AA: P, shape (A, A), in [0, 1]; held 1e-6 away from 0 and 1.
        weight_A: w, probabilities, shape (A,).

    Returns:
        Scores in logits, shape (A,), with weighted mean zero.
    """
    target = np.clip(win_prob_AA, CERTAIN, 1.0 - CERTAIN)
    score = np.zeros(len(weight_A))
    for _ in range(NEWTON_STEPS):
        fitted = 0.5 * (1.0 + np.tanh((score[:, None] - score[None, :]) / 2.0))
        residual = (target - fitted) @ weight_A
        slope = fitted * (1.0 - fitted) * weight_A[None, :]
        # Scores are free up to a constant; the weighted mean is held at zero by the added rank-one term.
        system = np.diag(slope.sum(axis=1)) - slope + weight_A[None, :]
        step = np.linalg.solve(system, residual)
        largest = np.abs(step).max()
        score = score + step * min(1.0, LARGEST_NEWTON_STEP / max(largest, LARGEST_NEWTON_STEP))
        if largest < NEWTON_TOLERANCE:
            break
    return score - weight_A @ score
