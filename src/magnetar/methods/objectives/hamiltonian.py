"""Hamiltonian gradient descent: make the game's gradient field small."""

from dataclasses import dataclass

import numpy as np

from magnetar.methods.objectives.base import GAME_VALUE, FloatArray, OracleObjective, PayoffOracle, check_positive
from magnetar.numerics import tilt

__all__ = ["HamiltonianDescent"]


@dataclass(frozen=True)
class HamiltonianDescent(OracleObjective):
    r"""Descend ``H(θ) = ½‖∇_θ V‖²`` in the logits θ of a softmax policy that plays against itself.

    With ``a = q(π) − 1/2`` the game's gradient is ``g = π ⊙ a`` (since ``⟨π, a⟩ = 0``), and
    ``∇H = π ⊙ (w − ⟨π, w⟩)`` with ``w = g ⊙ a − (P − 1/2)(g ⊙ π)``; so an update costs two evaluations. In logits every
    pure policy is a stationary point too: the method finds equilibria of full support, elsewhere it can stall.

    Source: arXiv:1906.02027.

    Attributes:
        step_size: η, in logits per unit of ∇H; positive.
    """

    step_size: float

    def __post_init__(self) -> None:
        check_positive(step_size=self.step_size)

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
        del log_reference_A, state
        policy = np.exp(log_policy_A)
        advantage = oracle.payoff() - GAME_VALUE
        gradient = policy * advantage
        weighted = gradient * policy
        curvature = gradient * advantage - (oracle.product(weighted) - GAME_VALUE * weighted.sum())
        descent = -policy * (curvature - policy @ curvature)
        return tilt(log_policy_A, descent, self.step_size), None
