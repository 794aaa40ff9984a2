"""Equilibria by means that no method of the library uses: a linear programme, and Newton's method."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import null_space
from scipy.optimize import linprog, minimize
from scipy.special import logsumexp, softmax

from magnetar.errors import GameError
from magnetar.games.gaps import duality_gap, regularized_gap
from magnetar.numerics import log_normalize

__all__ = ["linear_program_equilibrium", "maximum_entropy_equilibrium", "newton_regularized_equilibrium"]

FloatArray = NDArray[np.float64]

MAX_NEWTON_STEPS = 200
MAX_HALVINGS = 40
REGULARIZED_GAP_TOLERANCE = 1e-13
LARGEST_GAP = 1e-7
# Rounding of win rates that were averaged: win probabilities so near one half, and singular values that are so small a
# share of the largest.
TIE, SINGULAR = 1e-12, 1e-9
# HiGHS gives up on some games of low rank, whose programmes are degenerate; another of its algorithms then succeeds.
SOLVERS = (("highs", 1e-9), ("highs-ipm", 1e-9), ("highs", 1e-8), ("highs", 1e-7))


def linear_program_equilibrium(win_prob_AA: FloatArray) -> FloatArray:
    r"""Symmetric equilibrium: maximise v subject to ``Pᵀπ ≥ v`` and π in the simplex, by HiGHS.

    HiGHS stops at a feasibility tolerance of about 1e-9. The equilibrium is then recomputed on the support that HiGHS
    found, where every payoff equals the value, and kept if its gap is smaller; this reaches rounding error.

    Args:
        win_prob_AA: P, shape (A, A), in [0, 1], ``P + Pᵀ = 1``.

    Returns:
        π*, shape (A,), non-negative, sums to one. Where several equilibria exist, one of them.

    Raises:
        GameError: HiGHS reports failure.
    """
    actions = win_prob_AA.shape[0]
    # The equilibrium does not depend on the scale of P − 1/2, the solver's absolute tolerances do.
    centred_AA = win_prob_AA - 0.5
    centred_AA /= np.abs(centred_AA).max() or 1.0
    solution = _solve(
        f"the linear programme of a game with {actions} actions",
        c=np.append(np.zeros(actions), -1.0),
        A_ub=np.hstack([-centred_AA.T, np.ones((actions, 1))]),
        b_ub=np.zeros(actions),
        A_eq=np.append(np.ones(actions), 0.0)[None, :],
        b_eq=[1.0],
        bounds=[(0.0, None)] * actions + [(None, None)],
    )
    policy = np.maximum(solution[:-1], 0.0)
    policy /= policy.sum()
    polished = _equalize_on_support(centred_AA, policy)
    return min(policy, polished, key=lambda candidate: duality_gap(win_prob_AA @ candidate))


def _equalize_on_support(centred_AA: FloatArray, policy_A: FloatArray) -> FloatArray:
    """Policy on the same support against which all supported actions win exactly 1/2; the input if there is none."""
    support = np.flatnonzero(policy_A > 1e-9)
    conditions = np.vstack([centred_AA[np.ix_(support, support)], np.ones(len(support))])
    solution = np.linalg.lstsq(conditions, np.append(np.zeros(len(support)), 1.0), rcond=None)[0]
    if solution.min() < 0:
        return policy_A
    polished = np.zeros_like(policy_A)
    polished[support] = solution / solution.sum()
    return polished


def maximum_entropy_equilibrium(win_prob_AA: FloatArray) -> FloatArray:
    r"""Of all symmetric equilibria the one of the largest entropy: the Nash average, which is unique.

    A linear programme stops at some equilibrium where there are several, and which one depends on the order of the
    actions; an action and its copy would get all of their weight and none. Entropy is strictly concave and the
    equilibria are a convex set, so its maximum is unique: equal actions weigh the same, and a copy takes its share from
    the original alone.

    A linear programme finds the largest support S of an equilibrium. By strict complementarity exactly the
    actions of S win one half against every equilibrium, so that the equilibria are the policies on S with
    ``Σ_i π_i (P_ij − 1/2)`` zero for j in S and at least zero for the others; the dual of maximising entropy under
    these constraints is smooth.

    Args:
        win_prob_AA: P, shape (A, A), in [0, 1], ``P + Pᵀ = 1``.

    Returns:
        π, shape (A,), non-negative, sums to one.

    Raises:
        GameError: A solver fails.

    Source: arXiv:1806.02643, section 3: the maximum-entropy Nash equilibrium, "Nash averaging".
    """
    centred_AA = np.where(np.abs(win_prob_AA - 0.5) < TIE, 0.0, win_prob_AA - 0.5)
    centred_AA /= np.abs(centred_AA).max() or 1.0
    inside, some = _largest_support(centred_AA)
    if null_space(centred_AA[np.ix_(inside, inside)], rcond=SINGULAR).shape[1] <= 1:  # it is the only one
        return _equalize_on_support(centred_AA, some)
    equal, above = centred_AA[np.ix_(inside, inside)], centred_AA[np.ix_(inside, ~inside)]
    constraints = np.hstack([equal, above])  # of the policy on S: Σ_i π_i c_i is zero, or at least zero

    def dual(multipliers: FloatArray) -> tuple[float, FloatArray]:
        logits = constraints @ multipliers
        return float(logsumexp(logits)), softmax(logits) @ constraints

    bounds = [(None, None)] * equal.shape[1] + [(0.0, None)] * above.shape[1]
    options = {"ftol": 0.0, "gtol": 1e-13, "maxiter": 5000, "maxfun": 20000, "maxcor": 50}
    found = minimize(dual, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    policy = np.zeros(len(inside))
    policy[inside] = softmax(constraints @ found.x)
    gap = duality_gap(win_prob_AA @ policy)
    if not gap <= LARGEST_GAP:
        raise GameError(
            f"the equilibrium of the largest entropy of a game with {len(inside)} actions was found with a gap of "
            f"{gap:.1e} only, expected at most {LARGEST_GAP:g}: please report the matrix"
        )
    return policy


def _largest_support(centred_AA: FloatArray) -> tuple[NDArray[np.bool_], FloatArray]:
    """Actions that some equilibrium plays, and one that plays them all.

    As many ``t_i = min(1, x_i)`` as can be are one, where x is an equilibrium times a number.
    """
    actions = len(centred_AA)
    solution = _solve(
        f"the linear programme of the support of a game with {actions} actions",
        c=np.append(np.zeros(actions), -np.ones(actions)),
        A_ub=np.block([[-centred_AA.T, np.zeros((actions, actions))], [-np.eye(actions), np.eye(actions)]]),
        b_ub=np.zeros(2 * actions),
        bounds=[(0.0, None)] * actions + [(0.0, 1.0)] * actions,
    )
    inside = solution[actions:] > 0.5
    policy = np.where(inside, solution[:actions], 0.0)
    return inside, policy / policy.sum()


def _solve(what: str, **programme: Any) -> FloatArray:
    """The optimum of a linear programme, by the first solver that finds it."""
    message = ""
    for method, tolerance in SOLVERS:
        options = {"primal_feasibility_tolerance": tolerance, "dual_feasibility_tolerance": tolerance}
        result = linprog(**programme, method=method, options=options)
        if result.success:
            return np.asarray(result.x, dtype=np.float64)
        message = str(result.message)
    raise GameError(
        f"{what} failed ({message}); expected an optimum, which every preference game has: please report the matrix"
    )


def newton_regularized_equilibrium(win_prob_AA: FloatArray, log_magnet_A: FloatArray, strength: float) -> FloatArray:
    r"""Equilibrium of the KL-regularised game, the solution of ``π ∝ ρ exp(q(π)/α)``, to rounding error.

    Damped Newton on the logits: ``F(z) = z − log ρ − P softmax(z)/α = 0``. Its Jacobian is
    ``I − (P − 1/2)(diag π − ππᵀ)/α``. The matrix ``P − 1/2`` is antisymmetric and ``diag π − ππᵀ`` positive
    semi-definite, so their product has imaginary eigenvalues only, and the Jacobian is never singular: halving the step
    until ``‖F‖`` falls converges from anywhere, quadratically at the end. It uses no step size, hence checks the
    methods independently. Each step solves a dense (A, A) system.

    Args:
        win_prob_AA: P, shape (A, A), in [0, 1], ``P + Pᵀ = 1``.
        log_magnet_A: log ρ, shape (A,), nats, normalised; -inf excludes an action.
        strength: α, positive, in units of win probability per nat.

    Returns:
        log π*_α, shape (A,), nats, normalised; -inf where the magnet is.

    Raises:
        GameError: The regularised gap stays above 1e-13, which happens only for strengths near rounding error.
    """
    support = np.flatnonzero(~np.isneginf(log_magnet_A))
    centred_SS = win_prob_AA[np.ix_(support, support)] - 0.5
    log_magnet_S = log_magnet_A[support]
    logits = log_magnet_S
    # A strong pull is easy, a weak one is not: approach it through stronger ones, each starting from the last.
    for stage in _strengths_down_to(strength):
        logits = _newton(centred_SS, log_magnet_S, stage, logits)
    log_policy_A = np.full_like(log_magnet_A, -np.inf)
    log_policy_A[support] = log_normalize(logits)
    gap = regularized_gap(log_policy_A, win_prob_AA @ np.exp(log_policy_A), log_magnet_A, strength)
    if not gap <= REGULARIZED_GAP_TOLERANCE:
        raise GameError(
            f"Newton's method left a regularised gap of {gap:.1e} at strength {strength:g}, expected at most "
            f"{REGULARIZED_GAP_TOLERANCE:g}; use a larger strength, or equilibrium() for the game without a magnet"
        )
    return log_policy_A


def _strengths_down_to(strength: float) -> list[float]:
    stages = [strength]
    while stages[-1] < 0.1:
        stages.append(stages[-1] * 4.0)
    return stages[::-1]


def _newton(centred_SS: FloatArray, log_magnet_S: FloatArray, strength: float, logits: FloatArray) -> FloatArray:
    """Damped Newton until the residual no longer falls; see `newton_regularized_equilibrium`."""

    def residual_at(point: FloatArray) -> FloatArray:
        return point - log_magnet_S - centred_SS @ np.exp(log_normalize(point)) / strength

    residual = residual_at(logits)
    for _ in range(MAX_NEWTON_STEPS):
        size = np.linalg.norm(residual)
        policy = np.exp(log_normalize(logits))
        spread_SS = centred_SS * policy - np.outer(centred_SS @ policy, policy)
        try:
            step = np.linalg.solve(np.eye(len(policy)) - spread_SS / strength, residual)
        except np.linalg.LinAlgError:  # never in exact arithmetic; here 1 is below the rounding error of 1/strength
            return logits
        for halving in range(MAX_HALVINGS):
            damping = 0.5**halving
            candidate = logits - damping * step
            candidate_residual = residual_at(candidate)
            if np.linalg.norm(candidate_residual) <= (1.0 - 1e-4 * damping) * size:
                break
        else:
            return logits
        logits, residual = candidate, candidate_residual
    return logits
