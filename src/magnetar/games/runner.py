"""Play a method on an exact game: every action enumerated, every payoff exact."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from magnetar.errors import ConfigError, NonFiniteLossError
from magnetar.games.game import PreferenceGame
from magnetar.games.gaps import duality_gap, log_probabilities
from magnetar.methods import MagnetClock, Method
from magnetar.numerics import log_normalize

__all__ = ["Trace", "run"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trace:
    """What a run did. Entry 0 of every array is the starting point, entry k is after update k.

    Attributes:
        method: Name of the method.
        game: Name of the game.
        duality_gap: Gap of the current policy in the original game, shape (updates + 1,).
        average_gap: Gap of the average of all policies so far, the starting one included, shape (updates + 1,).
        evaluations: Evaluations of q spent so far, cumulative, shape (updates + 1,), integers. One update against the
            current policy costs one; a payoff that is still valid (opponents that did not move) costs nothing, nor does
            measuring the gap.
        log_policy: Last policy, shape (A,), nats, normalised.
        average_policy: Average of all policies, shape (A,).
        log_magnet: Last magnet, shape (A,), nats, normalised.
        magnet_moves: Numbers of the updates after which the magnet moved, increasing integers.
        policies: Every policy, shape (updates + 1, A), if the run was told to record them.
    """

    method: str
    game: str
    duality_gap: FloatArray
    average_gap: FloatArray
    evaluations: NDArray[np.int64]
    log_policy: FloatArray
    average_policy: FloatArray
    log_magnet: FloatArray
    magnet_moves: NDArray[np.int64]
    policies: FloatArray | None = None

    @property
    def policy(self) -> FloatArray:
        """Last policy, shape (A,), probabilities."""
        return np.exp(self.log_policy)


def run(
    method: Method,
    game: PreferenceGame,
    updates: int = 1000,
    *,
    initial: ArrayLike | None = None,
    reference: ArrayLike | None = None,
    magnet: ArrayLike | None = None,
    rounds: int = 1,
    record: bool = False,
    progress: bool = False,
) -> Trace:
    """Run a method's exact updates on a game.

    One update is one matrix–vector product and work linear in the number of actions: the payoffs of the policy just
    reached give its gap, and are the payoffs of the next update. All in log-probabilities; an action of probability
    zero stays there.

    Args:
        method: Opponent, objective and magnet schedule.
        game: The game.
        updates: Number of updates, at least 0.
        initial: Starting policy, probabilities, shape (A,); uniform by default.
        reference: Policy for the role "reference", probabilities, shape (A,); the starting policy by default.
        magnet: Starting magnet, probabilities, shape (A,); the reference by default.
        rounds: Self-play rounds that the updates are split into as evenly as possible, for schedules that move the
            magnet at the end of each round.
        record: Keep every policy in ``Trace.policies``; takes (updates + 1) · A floats.
        progress: Show a progress bar on stderr.

    Returns:
        The trace.

    Raises:
        ConfigError: A negative number of updates, rounds that do not fit, or a magnet that excludes every action that
            the starting policy plays.
        GameError: A start that is not a distribution over the game's actions.
        NonFiniteLossError: An update gave NaN, which no setting should.
    """
    if updates < 0:
        raise ConfigError(f"updates is {updates}, expected at least 0")
    if not 1 <= rounds <= max(updates, 1):
        raise ConfigError(f"rounds is {rounds}, expected between 1 and the number of updates ({updates})")
    log_policy, log_reference, log_magnet = _starting_points(game, initial, reference, magnet)
    state = _State(game.P, log_policy, log_reference, log_magnet)
    recorder = _Recorder(updates, state, record)
    round_ends = {(r * updates) // rounds for r in range(1, rounds + 1)}
    moves: list[int] = []
    # A step beyond the range of float64 rightly ends at log-probability -inf: that overflow is no error.
    with np.errstate(over="ignore"):
        for update in _counted(updates, progress):
            payoff = state.payoff_against(method.opponent.role)
            state.move_policy(method.objective.exact_update(state.log_policy, state.log_magnet, payoff))
            rate = method.magnet.rate(MagnetClock(update=update, round_ended=update in round_ends))
            if rate > 0:
                state.move_magnet(rate)
                moves.append(update)
            recorder.record(update, state)
    return Trace(
        method=method.name,
        game=game.name,
        duality_gap=recorder.gap,
        average_gap=recorder.average_gap,
        evaluations=recorder.evaluations,
        log_policy=state.log_policy,
        average_policy=recorder.average_policy / recorder.average_policy.sum(),
        log_magnet=state.log_magnet,
        magnet_moves=np.array(moves, dtype=np.int64),
        policies=recorder.policies,
    )


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
        self, win_prob_AA: FloatArray, log_policy: FloatArray, log_reference: FloatArray, log_magnet: FloatArray
    ) -> None:
        self.win_prob_AA = win_prob_AA
        self.log_reference = log_reference
        self.log_magnet = log_magnet
        self.evaluations = 0
        self._payoffs: dict[str, FloatArray] = {}
        self._place(log_policy)

    def _place(self, log_policy: FloatArray) -> None:
        self.log_policy = log_policy
        self.policy = np.exp(log_policy)
        self.payoff = self.win_prob_AA @ self.policy
        self._payoffs.pop("current", None)

    def payoff_against(self, role: str) -> FloatArray:
        """Payoffs of all actions against the policy in that role, counted when they are new to the method."""
        if role not in self._payoffs:
            self.evaluations += 1
            if role == "current":
                self._payoffs[role] = self.payoff
            else:
                log_opponent = {"magnet": self.log_magnet, "reference": self.log_reference}[role]
                self._payoffs[role] = self.win_prob_AA @ np.exp(log_opponent)
        return self._payoffs[role]

    def move_policy(self, log_policy: FloatArray) -> None:
        """Make this the current policy."""
        self._place(log_policy)

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
        self.policies = np.empty((updates + 1, len(state.policy))) if keep_policies else None
        self.average_policy = np.zeros_like(state.policy)
        self._average_payoff = np.zeros_like(state.payoff)
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
        if self.policies is not None:
            self.policies[update] = state.policy


def _counted(updates: int, progress: bool) -> Iterable[int]:
    if not progress:
        return range(1, updates + 1)
    from tqdm import tqdm

    return tqdm(range(1, updates + 1), desc="games", unit="update")
