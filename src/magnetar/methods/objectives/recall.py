"""MPO with recall: every payoff ever evaluated tells something about the game, and the next proposal uses all of it."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linprog

from magnetar.methods.objectives.base import (
    GAME_VALUE,
    ROUNDING_GAP,
    FloatArray,
    OracleObjective,
    PayoffOracle,
    check_positive,
)
from magnetar.methods.objectives.proximal import SkewModel, proximal_equilibrium
from magnetar.numerics import log_probabilities, project_to_simplex

__all__ = ["Recall", "RecallState"]

NEW_DIRECTION = 1e-8  # share of a policy's length outside the span of the others, below which it adds rounding only
LARGEST_PROGRAMME = 40_000  # numbers; a larger linear programme would take longer than all the rest
SMALLEST_GAP = 1e-15  # what rounding makes of a gap of zero, payoffs being differences to 1/2
SETTLED = 1e-8  # gap, in units of the largest payoff, where rounding decides which of two policies is the better one
WEAKEST_PULL = 1e-12  # of the model's scale; a weaker one would be lost in rounding
LP_TOLERANCE = 1e-10  # the solver's default, 1e-7, would end the method there


@dataclass(frozen=True, eq=False)
class RecallState:
    """What is remembered: evaluated policies, and the magnet with its payoffs.

    Attributes:
        policies: Evaluated policies, linearly independent, shape (m, A), probabilities.
        payoffs: Their centred payoffs ``(P − 1/2) π``, shape (m, A).
        magnet: ρ, the best policy known, which is also the current one, shape (A,).
        log_magnet: log ρ, nats.
        magnet_payoff: Its centred payoffs, shape (A,).
        settled: Whether nothing can be gained any more: the rest is rounding.
    """

    policies: FloatArray
    payoffs: FloatArray
    magnet: FloatArray
    log_magnet: FloatArray
    magnet_payoff: FloatArray
    settled: bool = False

    @property
    def scale(self) -> float:
        """Largest payoff seen, beside 1/2: faint preferences make small gaps that are not rounding."""
        return 2.0 * float(np.abs(self.payoffs).max())

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing more to gain than rounding."""
        return self.settled or 2.0 * self.half_gap <= max(ROUNDING_GAP * self.scale, SMALLEST_GAP)

    @property
    def half_gap(self) -> float:
        """Exploitability of the magnet: half its duality gap."""
        return float(self.magnet_payoff.max())


@dataclass(frozen=True)
class Recall(OracleObjective):
    r"""Magnetic proximal steps on a model of the game that fits every payoff evaluated so far.

    The centred game ``A = P − 1/2`` is antisymmetric, so evaluations ``A v`` on some policies v fix it on their span,
    and its rows' projections onto the span too. Each update:

    1. Model: the antisymmetric matrix of least Frobenius norm that agrees with all evaluations.
    2. Proposal: the equilibrium of the model regularised towards the magnet, ``⟨α(π − ρ) − Âπ, x − π⟩ ≥ 0`` for all x
       in the simplex, with ``α = κ · max_y(Aρ)_y / ‖ρ‖²``: as the magnet nears the equilibrium, the pull fades.
    3. One evaluation, of the proposal.
    4. The magnet, which is also the policy, moves to the best of: itself, the proposal, and the policy of least duality
       gap among all combinations of remembered policies. The last costs no evaluation, because payoffs are linear, but
       a small linear programme; of more than 40,000 remembered numbers it takes the latest and the magnet's.

    The first update evaluates the starting policy, and the best response to it as its proposal. Where a proposal is a
    combination of remembered policies the model is exact; the magnet then follows it whether it is better or not, until
    the gap is 1e-8 of the largest payoff: from there on rounding would decide, and nothing is evaluated any more.

    Source: of this library; the proximal-point view of MPO (arXiv:2410.16714, section 4) with a model in place of the
    inner game.

    Attributes:
        proximal_scale: κ, positive.
    """

    proximal_scale: float = 0.3

    def __post_init__(self) -> None:
        check_positive(proximal_scale=self.proximal_scale)

    @property
    def needs_magnet(self) -> bool:
        """True: it keeps one of its own."""
        return True

    def initial_state(self, log_policy_A: FloatArray) -> None:
        """Nothing is known before the first evaluation."""
        del log_policy_A

    def log_magnet(self, state: RecallState | None) -> FloatArray | None:
        """Where the magnet is."""
        return None if state is None else state.log_magnet

    def exact_step(
        self, oracle: PayoffOracle, log_policy_A: FloatArray, log_reference_A: FloatArray, state: RecallState | None
    ) -> tuple[FloatArray, RecallState]:
        """See `OracleObjective.exact_step`."""
        del log_reference_A
        proposal: FloatArray | None
        if state is None:
            start, payoff = np.exp(log_policy_A), oracle.payoff() - GAME_VALUE
            state = RecallState(start[None], payoff[None], start, log_policy_A, payoff)
            proposal = np.zeros_like(start)
            proposal[int(payoff.argmax())] = 1.0
        else:
            proposal = self._proposal(state)
        if proposal is None or state.at_rest:
            return state.log_magnet, state
        payoff = oracle.product(proposal) - GAME_VALUE
        known = len(state.policies)
        state = _remembered(state, proposal, payoff)
        if len(state.policies) == known:
            # Where nothing new can be learned the model is exact, and the proposal the proximal point of the true game:
            # following it, better or not, is what converges.
            if payoff.max() >= state.half_gap and 2.0 * state.half_gap <= SETTLED * state.scale:
                state = replace(state, settled=True)
            else:
                state = replace(state, magnet=proposal, log_magnet=log_probabilities(proposal), magnet_payoff=payoff)
        else:
            state = _moved(state, proposal, payoff)
            state = _moved(state, *best_combination(*_combined(state)))
        return state.log_magnet, state

    def _proposal(self, state: RecallState) -> FloatArray | None:
        """Regularised equilibrium of the model; None at an equilibrium."""
        if state.at_rest:
            return None
        model = SkewModel.fit(state.policies, state.payoffs)
        strength = self.proximal_scale * state.half_gap / float(state.magnet @ state.magnet)
        strength = max(strength, WEAKEST_PULL * model.scale())
        found = proximal_equilibrium(model, state.magnet, strength)
        # Not seen so far; a proximal gradient step is then the honest next thing to learn from.
        return project_to_simplex(state.magnet + state.magnet_payoff / strength) if found is None else found


def _moved(state: RecallState, policy: FloatArray, payoff: FloatArray) -> RecallState:
    """The magnet at this policy if that is the better one."""
    if not payoff.max() < state.half_gap:
        return state
    return replace(state, magnet=policy, log_magnet=log_probabilities(policy), magnet_payoff=payoff)


def _combined(state: RecallState) -> tuple[FloatArray, FloatArray]:
    """Policies for the linear programme, and their payoffs: all, or the latest and the magnet."""
    count = max(LARGEST_PROGRAMME // state.policies.shape[1], 2)
    if len(state.policies) <= count:
        return state.policies, state.payoffs
    latest = replace(state, policies=state.policies[1 - count :], payoffs=state.payoffs[1 - count :])
    latest = _remembered(latest, state.magnet, state.magnet_payoff)
    return latest.policies, latest.payoffs


def _remembered(state: RecallState, policy: FloatArray, payoff: FloatArray) -> RecallState:
    """With one more policy, if it is none of the combinations of the others."""
    basis, _ = np.linalg.qr(state.policies.T)
    outside = policy - basis @ (basis.T @ policy)
    outside -= basis @ (basis.T @ outside)
    if np.linalg.norm(outside) < NEW_DIRECTION * np.linalg.norm(policy):
        return state
    return replace(state, policies=np.vstack([state.policies, policy]), payoffs=np.vstack([state.payoffs, payoff]))


def best_combination(policies: FloatArray, payoffs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Policy of least duality gap among the affine combinations of some policies that are policies themselves.

    Args:
        policies: Linearly independent, shape (m, A), probabilities.
        payoffs: Their centred payoffs, shape (m, A).

    Returns:
        The policy and its centred payoffs, shape (A,) each; the last given policy if the solver finds nothing better.
    """
    last, last_payoff = policies[-1], payoffs[-1]
    if len(policies) == 1:
        return last, last_payoff
    # Orthonormal coordinates around the last policy keep the programme well scaled.
    directions, triangle = np.linalg.qr((policies[:-1] - last).T)
    slopes = np.linalg.solve(triangle.T, payoffs[:-1] - last_payoff).T
    coordinates, actions = directions.shape[1], len(last)
    scale = float(max(np.abs(slopes).max(), np.abs(last_payoff).max())) or 1.0  # the solver's tolerances are absolute
    solution = linprog(
        np.append(np.zeros(coordinates), 1.0),
        A_ub=np.block([[slopes / scale, -np.ones((actions, 1))], [-directions, np.zeros((actions, 1))]]),
        b_ub=np.concatenate([-last_payoff / scale, last]),
        bounds=[(None, None)] * (coordinates + 1),
        method="highs-ds",
        options={"primal_feasibility_tolerance": LP_TOLERANCE, "dual_feasibility_tolerance": LP_TOLERANCE},
    )
    if solution.status != 0:
        return last, last_payoff
    c = solution.x[:coordinates]
    policy = np.maximum(last + directions @ c, 0.0)
    return policy / policy.sum(), last_payoff + slopes @ c
