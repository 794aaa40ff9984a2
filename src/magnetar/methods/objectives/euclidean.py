"""Objectives of Euclidean geometry: gradient steps on probabilities, projected onto the simplex."""

from dataclasses import dataclass

import numpy as np

from magnetar.methods.objectives.base import FloatArray, OracleObjective, PayoffObjective, PayoffOracle, check_positive
from magnetar.numerics import log_probabilities, project_to_simplex

__all__ = ["AdaptiveSubgradient", "ProjectedGradient"]

LONGEST_STEP = 1e300  # beyond it a step of length times zero would be no number


@dataclass(frozen=True)
class ProjectedGradient(PayoffObjective):
    r"""Gradient ascent on the payoff, ``π_{k+1} = Π(π_k + η q)`` with Π the projection onto the simplex.

    With an optimistic payoff it is optimistic gradient descent–ascent (arXiv:2006.09517). Unlike in entropic geometry,
    an action of probability zero can come back.

    Attributes:
        step_size: η, probability per unit of win probability; positive.
    """

    step_size: float

    def __post_init__(self) -> None:
        check_positive(step_size=self.step_size)

    def exact_update(self, log_policy_A: FloatArray, log_magnet_A: FloatArray, payoff_A: FloatArray) -> FloatArray:
        """``Π(π + η q)``; see `PayoffObjective.exact_update`."""
        del log_magnet_A
        # The projection does not see a constant: with the best action at zero no step overflows upwards.
        gain = self.step_size * (payoff_A - payoff_A.max(axis=-1, keepdims=True))
        return log_probabilities(project_to_simplex(np.exp(log_policy_A) + gain))


@dataclass(frozen=True)
class AdaptiveSubgradient(OracleObjective):
    r"""AdaGrad-Norm on what a best response wins, ``f(π) = max_y q_y(π)``, which is convex and not smooth.

    ``π_{k+1} = Π(π_k − η g_k / √(Σ_{l≤k} ‖g_l‖²))`` with the subgradient ``g = P[y*, ·] = 1 − P e_{y*}`` at a best
    response ``y*`` to π_k, taken within the plane of the simplex. One step size serves all coordinates and no property
    of the game need be known. Each update costs two evaluations: the payoffs of π_k name y*, those of y* are the
    subgradient.

    Source: arXiv:2604.10728.

    Attributes:
        step_size: η, the length of the first step in probability; positive.
    """

    step_size: float

    def __post_init__(self) -> None:
        check_positive(step_size=self.step_size)

    def initial_state(self, log_policy_A: FloatArray) -> float:
        """Sum of the squared norms of the subgradients so far: zero."""
        del log_policy_A
        return 0.0

    def exact_step(
        self,
        oracle: PayoffOracle,
        log_policy_A: FloatArray,
        log_reference_A: FloatArray,
        state: float,
    ) -> tuple[FloatArray, float]:
        """See `OracleObjective.exact_step`; the state is the sum of squared norms."""
        del log_reference_A
        payoff = oracle.payoff()
        best = np.zeros_like(payoff)
        best[int(payoff.argmax())] = 1.0
        ascent = oracle.product(best)
        ascent = ascent - ascent.mean()
        total = state + float(ascent @ ascent)
        if total == 0.0:  # a game without preferences: every policy is an equilibrium
            return log_policy_A, total
        length = min(self.step_size / np.sqrt(total), LONGEST_STEP)
        step = length * (ascent - ascent.max())
        return log_probabilities(project_to_simplex(np.exp(log_policy_A) + step)), total
