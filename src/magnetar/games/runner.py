"""Play a method on an exact game: every action enumerated, payoffs exact or from sampled duels."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from magnetar.errors import ConfigError, NonFiniteLossError
from magnetar.games.feedback import SampledFeedback
from magnetar.games.game import PreferenceGame
from magnetar.games.gaps import duality_gap, log_probabilities
from magnetar.methods import MagnetClock, Method, OracleObjective, PayoffObjective
from magnetar.numerics import log_normalize

__all__ = ["Trace", "run"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trace:
    """What a run did. Entry 0 of every array is the starting point, entry k is after update k.

    Attributes:
        method: Name of the method.
        game: Name of the game.
        duality_gap: Gap of the current policy in the original game, shape (updates + 1,). Always exact, also when the
            method sees samples only.
        average_gap: Gap of the average of all policies so far, the starting one included, shape (updates + 1,).
        evaluations: Evaluations of q spent so far, cumulative, shape (updates + 1,), integers. One update against the
            current policy costs one, extragradient two, reading the whole matrix A; a payoff that is still valid
            (opponents that did not move) costs nothing, nor does measuring the gap.
        duels: Sampled comparisons of two actions fought so far, cumulative, shape (updates + 1,); zero with exact
            payoffs.
        log_policy: Last policy, shape (A,), nats, normalised.
        average_policy: Average of all policies, shape (A,).
        log_magnet: Last magnet, shape (A,), nats, normalised.
        magnet_moves: Numbers of the updates after which the magnet moved, increasing integers.
        policies: Every policy, shape (updates + 1, A), if the run was told to record them.
        magnets: Every position of the magnet, the first included, shape (moves + 1, A), likewise.
    """

    method: str
    game: str
    duality_gap: FloatArray
    average_gap: FloatArray
    evaluations: NDArray[np.int64]
    duels: NDArray[np.int64]
    log_policy: FloatArray
    average_policy: FloatArray
    log_magnet: FloatArray
    magnet_moves: NDArray[np.int64]
    policies: FloatArray | None = None
    magnets: FloatArray | None = None

    @property
    def policy(self) -> FloatArray:
        """Last policy, shape (A,), probabilities."""
        return np.exp(self.log_policy)

    def evaluations_to(self, gap: float) -> int | None:
        """Evaluations of q spent when the current policy first had a duality gap of at most ``gap``; None if never."""
        reached = np.flatnonzero(self.duality_gap <= gap)
        return int(self.evaluations[reached[0]]) if len(reached) else None


def run(
    method: Method,
    game: PreferenceGame,
    updates: int = 1000,
    *,
    initial: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    magnet: ArrayLike | None = None,
    feedback: SampledFeedback | None = None,
    rounds: int = 1,
    stop_at_gap: float | None = None,
    record: bool = False,
    progress: bool = False,
) -> Trace:
    """Run a method's exact updates on a game.

    One update is one matrix–vector product and work linear in the number of actions: the payoffs of the policy just
    reached give its gap, and are the payoffs of the next update. All in log-probabilities; an action of probability
    zero stays there, except in the Euclidean methods.

    Args:
        method: Opponent, objective and magnet schedule.
        game: The game.
        updates: Number of updates, at least 0.
        initial: Starting policy, probabilities, shape (A,); uniform by default.
        reference: Policy for the role "reference", probabilities, shape (A,); the starting policy by default.
        magnet: Starting magnet, probabilities, shape (A,); the reference by default.
        feedback: How the method's payoffs are sampled; exact by default.
        rounds: Self-play rounds that the updates are split into as evenly as possible, for schedules that move the
            magnet at the end of each round.
        stop_at_gap: Stop as soon as the current policy's duality gap is at most this; the trace is then shorter.
        record: Keep every policy and magnet in the trace; takes about (updates + 1) · A floats.
        progress: Show a progress bar on stderr.

    Returns:
        The trace.

    Raises:
        ConfigError: A negative number of updates, rounds that do not fit, a magnet that excludes every action that
            the starting policy plays, or sampled feedback for a method that reads the game itself.
        GameError: A start that is not a distribution over the game's actions.
        NonFiniteLossError: An update gave NaN, which no setting should.
    """
    if updates < 0:
        raise ConfigError(f"updates is {updates}, expected at least 0")
    if not 1 <= rounds <= max(updates, 1):
        raise ConfigError(f"rounds is {rounds}, expected between 1 and the number of updates ({updates})")
    if feedback is not None and isinstance(method.objective, OracleObjective):
        raise ConfigError(
            f"feedback is sampled, but method {method.name!r} asks the game for more than payoffs; run it with exact "
            "feedback, or choose a method that learns from payoffs"
        )
    log_policy, log_reference, log_magnet = _starting_points(game, initial, reference, magnet)
    state = _State(method, game.P, log_policy, log_reference, log_magnet, feedback)
    recorder = _Recorder(updates, state, record)
    round_ends = {(r * updates) // rounds for r in range(1, rounds + 1)}
    # A step beyond the range of float64 rightly ends at log-probability -inf: that overflow is no error.
    with np.errstate(over="ignore"):
        for update in _counted(updates, progress):
            if stop_at_gap is not None and recorder.gap[update - 1] <= stop_at_gap:
                break
            state.update_policy()
            rate = method.magnet.rate(MagnetClock(update=update, round_ended=update in round_ends))
            if rate > 0:
                state.move_magnet(rate)
                recorder.record_move(update, state)
            recorder.record(update, state)
    return recorder.trace(method.name, game.name, state)


def _starting_points(
    game: PreferenceGame, initial: ArrayLike | None, reference: ArrayLike | None, magnet: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log-probabilities of policy, reference and magnet; each that is not given is the one before it."""
    uniform = np.full(game.num_actions, 1.0 / game.num_actions)
    start = log_probabilities(game.distribution(uniform if initial is None else initial, "initial"))
    log_reference = start if reference is None else log_probabilities(game.distribution(reference, "reference"))
    log_magnet = log_reference if magnet is None else log_probabilities(game.distribution(magnet, "magnet"))
    if np.isneginf(start + log_magnet).all():
        raise ConfigError(
            "the magnet gives probability zero to every action that the starting policy plays, expected at least one "
            "in common; give the magnet all the actions that the policy may use"
        )
    return start, log_reference, log_magnet


class _State:
    """Policy, magnet and the payoffs against each role, every one evaluated only when its policy has moved."""

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
        self._matrix_was_read = False
        objective = method.objective
        self._memory: Any = objective.initial_state(log_policy) if isinstance(objective, OracleObjective) else None
        self._place(log_policy)

    def _place(self, log_policy: FloatArray) -> None:
        self.log_policy = log_policy
        self.policy = np.exp(log_policy)
        self.payoff = self.win_prob_AA @ self.policy
        self._payoffs.pop("current", None)
        self._payoffs.pop("mixture", None)

    def update_policy(self) -> None:
        """One update of the method, its prediction included."""
        objective = self.method.objective
        payoff = self._payoff_against_opponent()
        if isinstance(objective, OracleObjective):
            new, self._memory = objective.exact_step(self, self.log_policy, self.log_reference, payoff, self._memory)
        else:
            assert isinstance(objective, PayoffObjective)
            if self.method.prediction == "optimistic":
                previous = payoff if self._previous_payoff is None else self._previous_payoff
                self._previous_payoff = payoff
                payoff = 2.0 * payoff - previous
            elif self.method.prediction == "extragradient":
                ahead = objective.exact_update(self.log_policy, self.log_magnet, payoff)
                payoff = self._evaluate(np.exp(ahead))
            new = objective.exact_update(self.log_policy, self.log_magnet, payoff)
        self._place(new)

    def _payoff_against_opponent(self) -> FloatArray:
        """Payoffs of all actions against the method's opponent, counted when they are new to the method."""
        role = self.method.opponent.role
        if role not in self._payoffs:
            self._payoffs[role] = self._evaluate(self._opponent(role), exact=self.payoff if role == "current" else None)
        return self._payoffs[role]

    def _opponent(self, role: str) -> FloatArray:
        if role == "current":
            return self.policy
        if role == "mixture":
            weight = self.method.opponent.reference_weight
            return np.exp(log_normalize((1.0 - weight) * self.log_policy + weight * self.log_reference))
        return np.exp({"magnet": self.log_magnet, "reference": self.log_reference}[role])

    def _evaluate(self, opponent: FloatArray, exact: FloatArray | None = None) -> FloatArray:
        """One evaluation of q against a policy; ``exact`` saves the product if it is already there."""
        self.evaluations += 1
        if self._feedback is None or self._generator is None:
            return self.win_prob_AA @ opponent if exact is None else exact
        self_play = opponent is self.policy
        payoff, duels = self._feedback.payoff(
            self._generator, self.win_prob_AA, self.policy, None if self_play else opponent
        )
        self.duels += duels
        return payoff

    def product(self, vector_A: FloatArray) -> FloatArray:
        """See `PayoffOracle`."""
        self.evaluations += 1
        return self.win_prob_AA @ vector_A

    def win_prob(self) -> FloatArray:
        """See `PayoffOracle`."""
        if not self._matrix_was_read:
            self.evaluations += len(self.win_prob_AA)
            self._matrix_was_read = True
        return self.win_prob_AA

    def move_magnet(self, rate: float) -> None:
        """Mix the policy into the magnet, ``log ρ ← (1−τ) log ρ + τ log π`` renormalised; τ = 1 copies it."""
        if rate >= 1.0:
            self.log_magnet = self.log_policy
        else:
            self.log_magnet = log_normalize((1.0 - rate) * self.log_magnet + rate * self.log_policy)
        self._payoffs.pop("magnet", None)


class _Recorder:
    """Curves of a run, and running averages; by linearity the average's payoffs are the average of the payoffs."""

    def __init__(self, updates: int, state: _State, keep_policies: bool) -> None:
        self.gap = np.empty(updates + 1)
        self.average_gap = np.empty(updates + 1)
        self.evaluations = np.zeros(updates + 1, dtype=np.int64)
        self.duels = np.zeros(updates + 1, dtype=np.int64)
        self.policies = np.empty((updates + 1, len(state.policy))) if keep_policies else None
        self.magnets = [np.exp(state.log_magnet)] if keep_policies else None
        self.moves: list[int] = []
        self.average_policy = np.zeros_like(state.policy)
        self._average_payoff = np.zeros_like(state.payoff)
        self._last = 0
        self.record(0, state)

    def record(self, update: int, state: _State) -> None:
        """Enter the state after ``update``."""
        gap = duality_gap(state.payoff)
        if not np.isfinite(state.payoff[0]):
            raise NonFiniteLossError(f"the payoffs after update {update} are not finite: {state.payoff}")
        self.average_policy += (state.policy - self.average_policy) / (update + 1)
        self._average_payoff += (state.payoff - self._average_payoff) / (update + 1)
        self.gap[update] = gap
        self.average_gap[update] = duality_gap(self._average_payoff)
        self.evaluations[update] = state.evaluations
        self.duels[update] = state.duels
        self._last = update
        if self.policies is not None:
            self.policies[update] = state.policy

    def record_move(self, update: int, state: _State) -> None:
        """Enter a move of the magnet after ``update``."""
        self.moves.append(update)
        if self.magnets is not None:
            self.magnets.append(np.exp(state.log_magnet))

    def trace(self, method: str, game: str, state: _State) -> Trace:
        """All that was recorded, cut to the updates that were made."""
        made = slice(self._last + 1)
        return Trace(
            method=method,
            game=game,
            duality_gap=self.gap[made],
            average_gap=self.average_gap[made],
            evaluations=self.evaluations[made],
            duels=self.duels[made],
            log_policy=state.log_policy,
            average_policy=self.average_policy / self.average_policy.sum(),
            log_magnet=state.log_magnet,
            magnet_moves=np.array(self.moves, dtype=np.int64),
            policies=None if self.policies is None else self.policies[made],
            magnets=None if self.magnets is None else np.array(self.magnets),
        )


def _counted(updates: int, progress: bool) -> Iterable[int]:
    if not progress:
        return range(1, updates + 1)
    from tqdm import tqdm

    return tqdm(range(1, updates + 1), desc="games", unit="update")
