"""Adaptive magnetic descent without memory of the game: optimistic steps of adaptive length, a magnet that restarts."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.objectives.base import (
    GAME_VALUE,
    ROUNDING_GAP,
    FloatArray,
    OracleObjective,
    PayoffOracle,
    check_positive,
)
from magnetar.numerics import log_probabilities, project_to_simplex, tilt

__all__ = ["AdaptiveMagneticDescent", "AnchoredState", "Geometry"]

Geometry = Literal["euclidean", "entropic"]
"""Distance in which a step is short."""

SHORTEST_ROUND = 3  # updates; shorter ones measure nothing
SMALLEST_MOVE = 1e-10  # of the policy, in its geometry's norm; below it the measured slope is rounding


@dataclass(frozen=True, eq=False)
class AnchoredState:
    """What adaptive magnetic descent remembers: one step back, and the averages of the current round.

    Attributes:
        magnet: ρ in the geometry's coordinates: probabilities, or log-probabilities, shape (A,).
        log_magnet: log ρ, shape (A,), nats.
        step_size: η of the next step.
        previous_policy: Policy one step back, probabilities, shape (A,); None before the first step.
        previous_payoff: Its centred payoffs q − 1/2, shape (A,).
        known_payoff: Centred payoffs of the current policy where they follow by linearity; None where it must be
            evaluated.
        updates: Steps since the magnet moved.
        total_updates: Steps since the start.
        policy_sum: Weighted sum of the policies since then, shape (A,).
        payoff_sum: The same of their centred payoffs.
        weight: Sum of the weights.
        gap_at_move: Duality gap when the magnet moved last; inf before the first step.
        best_gap: The better of the two gaps at the last step; inf when a round starts.
    """

    magnet: FloatArray
    log_magnet: FloatArray
    step_size: float
    previous_policy: FloatArray | None
    previous_payoff: FloatArray | None
    known_payoff: FloatArray | None
    updates: int
    total_updates: int
    policy_sum: FloatArray
    payoff_sum: FloatArray
    weight: float
    gap_at_move: float
    best_gap: float = float("inf")


@dataclass(frozen=True)
class AdaptiveMagneticDescent(OracleObjective):
    r"""Optimistic magnetic descent that sets its own step size and moves its magnet when the round has paid.

    A step of the round's k-th update, k = 0, 1, …, in Euclidean geometry (Π projects onto the simplex):
    ``π⁺ = Π((1 − b) π + b ρ + η (2 q − q_prev))`` with the magnet's weight ``b = 1/(k + 4)``, which fades within the
    round as in Halpern's iteration; in entropic geometry the same for log-probabilities.

    - Step size: ``η ← min(growth · η, safety / L)`` with ``L = ‖q − q_prev‖ / ‖π − π_prev‖`` from the last step;
      Euclidean norms, or the local ones of the entropy at the midpoint m, ``‖Δπ‖² = Σ Δπ²/m`` and ``‖Δq‖²`` the
      variance of Δq under m. It carries over from round to round; a round's first step keeps it, with ``q_prev = q``.
    - Average: of the round's evaluated policies, the i-th with weight i·η where the magnet pulls and η otherwise; its
      payoffs are free, because q is linear.
    - Magnet: policy and magnet both move to the better of the current policy and the average, and a new round starts,
      when the better one's duality gap is at most ``shrink`` times the gap at the last move (at first: of the starting
      policy); or at most ``shrink_rising`` times and above the better gap one update earlier; or when the round has
      lasted ``longest_share`` of all policies evaluated so far, and at least three. No round ends before two. Where the
      current policy is the better one the same update goes on to take a step; a move to the average takes none.

    The starting policy counts as the first round's first. One evaluation an update; none after an update that moves the
    policy to the round's average, whose payoffs are known.

    Source: of this library. Parts: optimistic steps arXiv:2006.09517, anchoring Halpern (1967), adaptive restarts
    arXiv:2105.12715.

    Attributes:
        geometry: "euclidean" or "entropic".
        anchored: Whether the magnet pulls within a round; otherwise it only marks where rounds start.
        shrink: Share of the last move's gap at which the magnet moves, in (0, 1).
        shrink_rising: The same once the gap no longer falls, at least ``shrink``, below 1.
        longest_share: Longest round, as a share of all updates so far, positive.
        safety: Bound on η L, positive.
        growth: Largest growth of η from step to step, above 1.
        first_step: η of the first step, positive.
    """

    geometry: Geometry = "euclidean"
    anchored: bool = True
    shrink: float = 0.207
    shrink_rising: float = 0.563
    longest_share: float = 0.8
    safety: float = 0.5
    growth: float = 1.2
    first_step: float = 9.58

    def __post_init__(self) -> None:
        if self.geometry not in ("euclidean", "entropic"):
            raise ConfigError(unknown_name("geometry", self.geometry, ("euclidean", "entropic")))
        check_positive(safety=self.safety, first_step=self.first_step, longest_share=self.longest_share)
        if not 0 < self.shrink <= self.shrink_rising < 1:
            raise ConfigError(
                f"shrink is {self.shrink} and shrink_rising {self.shrink_rising}, expected 0 < shrink <= shrink_rising "
                "< 1"
            )
        if not 1 < self.growth < float("inf"):
            raise ConfigError(f"growth is {self.growth}, expected a finite number above 1")

    @property
    def needs_magnet(self) -> bool:
        """True: it keeps one of its own."""
        return True

    def initial_state(self, log_policy_A: FloatArray) -> AnchoredState:
        """The magnet at the starting policy, nothing remembered."""
        return self._new_round(log_policy_A, gap=float("inf"), last=None)

    def log_magnet(self, state: AnchoredState) -> FloatArray:
        """Where the magnet is."""
        return state.log_magnet

    def exact_step(
        self, oracle: PayoffOracle, log_policy_A: FloatArray, log_reference_A: FloatArray, state: AnchoredState
    ) -> tuple[FloatArray, AnchoredState]:
        """See `OracleObjective.exact_step`."""
        del log_reference_A
        policy = np.exp(log_policy_A)
        payoff = state.known_payoff if state.known_payoff is not None else oracle.payoff() - GAME_VALUE
        if 2.0 * payoff.max() <= ROUNDING_GAP:
            return log_policy_A, state
        if state.known_payoff is not None:  # the first step of a round that starts at an average
            return self._descend(policy, log_policy_A, payoff, state)
        step_size = self._step_size(policy, payoff, state)
        state = self._enter(policy, payoff, step_size, state)
        average_payoff = state.payoff_sum / state.weight
        gap, average_gap = 2.0 * float(payoff.max()), 2.0 * float(average_payoff.max())
        if state.gap_at_move == float("inf"):
            state = replace(state, gap_at_move=gap)
        elif self._round_is_over(state, min(gap, average_gap)):
            if average_gap < gap:
                average = log_probabilities(state.policy_sum / state.weight)
                fresh = self._new_round(average, average_gap, state)
                return average, replace(fresh, known_payoff=average_payoff)
            state = self._new_round(log_policy_A, gap, state)
        else:
            state = replace(state, best_gap=min(gap, average_gap))
        return self._descend(policy, log_policy_A, payoff, state)

    def _round_is_over(self, state: AnchoredState, gap: float) -> bool:
        if state.updates < 2:
            return False
        return (
            gap <= self.shrink * state.gap_at_move
            or (gap <= self.shrink_rising * state.gap_at_move and gap > state.best_gap)
            or state.updates >= max(self.longest_share * state.total_updates, SHORTEST_ROUND)
        )

    def _descend(
        self, policy: FloatArray, log_policy: FloatArray, payoff: FloatArray, state: AnchoredState
    ) -> tuple[FloatArray, AnchoredState]:
        previous = payoff if state.previous_payoff is None else state.previous_payoff
        predicted = 2.0 * payoff - previous
        pull = 1.0 / (state.updates + 4) if self.anchored else 0.0
        if self.geometry == "euclidean":
            target = (1.0 - pull) * policy + pull * state.magnet + state.step_size * predicted
            new = log_probabilities(project_to_simplex(target))
        elif pull == 0.0:
            new = tilt(log_policy, predicted, state.step_size)
        else:
            absent = np.isneginf(log_policy) | np.isneginf(state.magnet)
            with np.errstate(invalid="ignore"):
                mixed = np.where(absent, -np.inf, (1.0 - pull) * log_policy + pull * state.magnet)
            new = tilt(mixed, predicted, state.step_size)
        return new, replace(state, previous_policy=policy, previous_payoff=payoff, known_payoff=None)

    def _step_size(self, policy: FloatArray, payoff: FloatArray, state: AnchoredState) -> float:
        """The longest step that the slope of q along the last one allows."""
        if state.previous_policy is None or state.previous_payoff is None:
            return state.step_size
        move, change = policy - state.previous_policy, payoff - state.previous_payoff
        if self.geometry == "euclidean":
            length, slope = float(np.sqrt(move @ move)), float(np.sqrt(change @ change))
        else:  # the local norms of the entropy: moves over, changes times the policy
            middle = 0.5 * (policy + state.previous_policy)
            seen = middle > 0
            length = float(np.sqrt(np.sum(move[seen] ** 2 / middle[seen])))
            slope = float(np.sqrt(middle @ (change - middle @ change) ** 2))
        if length <= SMALLEST_MOVE:
            return state.step_size
        longest = self.growth * state.step_size
        return longest if slope * longest <= self.safety * length else self.safety * length / slope

    def _enter(self, policy: FloatArray, payoff: FloatArray, step_size: float, state: AnchoredState) -> AnchoredState:
        """Count the current policy in the round's averages."""
        # Later policies count for more where the magnet pulls: early ones are still on their way from it.
        weight = (state.updates + 1) * step_size if self.anchored else step_size
        return replace(
            state,
            step_size=step_size,
            updates=state.updates + 1,
            total_updates=state.total_updates + 1,
            policy_sum=state.policy_sum + weight * policy,
            payoff_sum=state.payoff_sum + weight * payoff,
            weight=state.weight + weight,
        )

    def _new_round(self, log_policy: FloatArray, gap: float, last: AnchoredState | None) -> AnchoredState:
        return AnchoredState(
            magnet=np.exp(log_policy) if self.geometry == "euclidean" else log_policy,
            log_magnet=log_policy,
            step_size=self.first_step if last is None else last.step_size,
            previous_policy=None,
            previous_payoff=None,
            known_payoff=None,
            updates=0,
            total_updates=0 if last is None else last.total_updates,
            policy_sum=np.zeros_like(log_policy),
            payoff_sum=np.zeros_like(log_policy),
            weight=0.0,
            gap_at_move=gap,
        )
