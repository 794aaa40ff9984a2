"""Policy, magnet and payoffs of a method at play: one update after another."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnetar.games.play.feedback import SampledFeedback
from magnetar.methods import Method, OracleObjective, PayoffObjective
from magnetar.numerics import log_mixture

__all__ = ["PlayState"]

FloatArray = NDArray[np.float64]

FEW_ACTIONS = 6  # up to here a call of BLAS for each game costs more than its product


class PlayState:
    """Policy, magnet and the payoffs against each role, every one evaluated only when its policy has moved.

    All arrays may have a leading axis of N games of the same size, which are then played at once.

    Args:
        method: What to play.
        win_prob_AA: P, shape (A, A) or (N, A, A).
        log_policy: Starting policy, shape (A,) or (N, A), nats, normalised.
        log_reference: Reference policy, same form.
        log_magnet: Starting magnet, same form.
        feedback: How payoffs are sampled; None for exact ones.
    """

    def __init__(
        self,
        method: Method,
        win_prob_AA: FloatArray,
        log_policy: FloatArray,
        log_reference: FloatArray,
        log_magnet: FloatArray,
        feedback: SampledFeedback | None,
    ) -> None:
        self.method = method
        self.win_prob_AA = win_prob_AA
        self.log_reference = log_reference
        self.log_magnet = log_magnet
        self.evaluations = 0
        self.duels = 0
        self._feedback = feedback
        self._generator = feedback.generator() if feedback is not None else None
        self._payoffs: dict[str, FloatArray] = {}
        self._previous_payoff: FloatArray | None = None
        objective = method.objective
        # Sorted here once: asking an abstract class whether it has an instance costs as much as a small product.
        self._asking = objective if isinstance(objective, OracleObjective) else None
        self._update = objective.exact_update if isinstance(objective, PayoffObjective) else None
        self._oracle = _Oracle(self)
        self._memory: Any = self._asking.initial_state(log_policy) if self._asking is not None else None
        self._place(log_policy)

    def _product(self, vector: FloatArray) -> FloatArray:
        if self.win_prob_AA.ndim == 2:
            return self.win_prob_AA @ vector
        if vector.shape[-1] <= FEW_ACTIONS:
            return np.einsum("nij,nj->ni", self.win_prob_AA, vector)
        return np.matmul(self.win_prob_AA, vector[..., None])[..., 0]

    def _place(self, log_policy: FloatArray) -> None:
        self.log_policy = log_policy
        self.policy = np.exp(log_policy)
        self.payoff = self._product(self.policy)
        self._payoffs.pop("current", None)
        self._payoffs.pop("mixture", None)

    def update_policy(self) -> None:
        """One update of the method, its prediction included."""
        if self._asking is not None:
            new, self._memory = self._asking.exact_step(self._oracle, self.log_policy, self.log_reference, self._memory)
        else:
            assert self._update is not None
            payoff = self._payoff_against(self.method.opponent.role)
            if self.method.prediction == "optimistic":
                previous = payoff if self._previous_payoff is None else self._previous_payoff
                self._previous_payoff = payoff
                payoff = 2.0 * payoff - previous
            elif self.method.prediction == "extragradient":
                ahead = self._update(self.log_policy, self.log_magnet, payoff)
                payoff = self._evaluate(np.exp(ahead))
            new = self._update(self.log_policy, self.log_magnet, payoff)
        self._place(new)

    def own_magnet(self) -> FloatArray | None:
        """The magnet that the objective itself keeps, if it keeps one and has just moved it."""
        magnet = self._asking.log_magnet(self._memory) if self._asking is not None else None
        return None if magnet is None or magnet is self.log_magnet else magnet

    def _payoff_against(self, role: str) -> FloatArray:
        """Payoffs of all actions against the policy in that role, counted when they are new to the method."""
        # Exact payoffs hold until a policy moves; duels are fought anew, or one draw's noise would steer the whole run.
        if role not in self._payoffs or self._feedback is not None:
            self._payoffs[role] = self._evaluate(self._opponent(role), exact=self.payoff if role == "current" else None)
        return self._payoffs[role]

    def _opponent(self, role: str) -> FloatArray:
        if role == "current":
            return self.policy
        if role == "mixture":
            weight = self.method.opponent.reference_weight
            return np.exp(log_mixture(self.log_policy, self.log_reference, weight))
        return np.exp({"magnet": self.log_magnet, "reference": self.log_reference}[role])

    def _evaluate(self, opponent: FloatArray, exact: FloatArray | None = None) -> FloatArray:
        """One evaluation of q against a policy; ``exact`` saves the product if it is already there."""
        self.evaluations += 1
        if self._feedback is None or self._generator is None:
            return self._product(opponent) if exact is None else exact
        self_play = opponent is self.policy
        payoff, duels = self._feedback.payoff(
            self._generator, self.win_prob_AA, self.policy, None if self_play else opponent
        )
        self.duels += duels
        return payoff

    def place_magnet(self, log_magnet: FloatArray) -> None:
        """Put the magnet where the objective has put its own."""
        self.log_magnet = log_magnet

    def move_magnet(self, rate: float) -> None:
        """Mix the policy into the magnet, ``log ρ ← (1−τ) log ρ + τ log π`` renormalised; τ = 1 copies it."""
        self.log_magnet = log_mixture(self.log_magnet, self.log_policy, rate)
        self._payoffs.pop("magnet", None)


class _Oracle:
    """The game's answers to an objective that asks for itself; see `magnetar.methods.PayoffOracle`."""

    def __init__(self, state: PlayState) -> None:
        self._state = state
        self._matrix: FloatArray | None = None

    def payoff(self) -> FloatArray:
        return self._state._payoff_against("current")

    def product(self, vector_A: FloatArray) -> FloatArray:
        if self._state._feedback is None:
            self._state.evaluations += 1
            return self._state._product(vector_A)
        # Duels need opponents to draw, hence the vector as the difference of two multiples of policies.
        product = np.zeros_like(vector_A)
        for sign in (1.0, -1.0):
            part = np.maximum(sign * vector_A, 0.0)
            total = float(part.sum())
            if total > 0:
                product += sign * total * self._state._evaluate(part / total)
        return product

    def win_prob(self) -> FloatArray:
        state, actions = self._state, len(self._state.win_prob_AA)
        if self._matrix is None:
            self._matrix = state.win_prob_AA
            state.evaluations += actions
        if state._feedback is not None and state._generator is not None:
            self._matrix, duels = state._feedback.win_prob(state._generator, state.win_prob_AA)
            state.duels += duels
        return self._matrix
