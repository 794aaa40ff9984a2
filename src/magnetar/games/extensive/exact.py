"""Run a method on an extensive-form game: its own update at every information state, with exact values."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import ConfigError, NonFiniteLossError, checked_integer
from magnetar.games.checks import check_kind, number_or_nan
from magnetar.games.extensive.openspiel import Exploitability
from magnetar.games.extensive.tree import ExtensiveGame, check_extensive
from magnetar.games.extensive.values import SequenceForm
from magnetar.games.length import counted
from magnetar.methods import EachRound, MagnetClock, Method
from magnetar.methods.objectives import PayoffObjective, ProjectedGradient, RewardTransformedPolicyGradient
from magnetar.numerics import log_mixture, log_probabilities

__all__ = [
    "ExtensiveTrace",
    "behavioural_form",
    "check_schedule",
    "check_tremble",
    "measuring_points",
    "run_exact",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExtensiveTrace:
    """What a run did.

    Attributes:
        method: Name of the method.
        game: Name of the game.
        updates: After how many updates each value was measured, shape (n,), the start (0) first.
        exploitability: Of the policy at that moment, chips per game, shape (n,). NashConv (the duality gap) is twice
            it.
        average_exploitability: Of the average of all policies so far (averaged as realisation plans), same shape; None
            if it was not asked for.
        policy: Last policy, shape (I, A).
        magnet: Last magnet, shape (I, A).
        magnet_moves: Numbers of the updates after which the magnet moved.
    """

    method: str
    game: str
    updates: IntArray
    exploitability: FloatArray
    average_exploitability: FloatArray | None
    policy: FloatArray
    magnet: FloatArray
    magnet_moves: IntArray

    @property
    def nash_conv(self) -> FloatArray:
        """Duality gap: what both players together could gain, chips per game, shape (n,)."""
        return 2.0 * self.exploitability


def behavioural_form(method: Method) -> PayoffObjective:
    """The update that a method makes at one information state.

    Args:
        method: Any method of the zoo.

    Returns:
        Its objective, whose ``exact_update`` takes one row per information state.

    Raises:
        ConfigError: The method asks a matrix game for more than the payoffs of a row, or its magnet watches one or
            waits for rounds.
    """
    check_kind("method", method, Method, "build it, for instance methods.mpo()")
    objective = method.objective
    advice = "; choose for instance mpo, mpo_rt, mmd or mirror_descent"
    if not isinstance(objective, PayoffObjective):
        raise ConfigError(
            f"method {method.name!r} has no behavioural form: its update looks beyond the payoffs at one information "
            f"state{advice}"
        )
    if isinstance(objective, ProjectedGradient):
        raise ConfigError(
            f"method {method.name!r} has no behavioural form: its projection would give probability to actions that "
            f"are not legal at an information state{advice}"
        )
    if method.magnet.needs_progress:
        raise ConfigError(
            f"method {method.name!r} has no behavioural form: its magnet watches the progress of a matrix game{advice}"
        )
    check_schedule(method)
    return objective


def check_schedule(method: Method) -> None:
    """Refuse a magnet that waits for the end of a round: a run here has none, so it would never move.

    Args:
        method: Any method.

    Raises:
        ConfigError: Its magnet moves at the end of each round.
    """
    if isinstance(method.magnet, EachRound):
        raise ConfigError(
            f"method {method.name!r} moves its magnet at the end of each round, but runs on extensive games have no "
            "rounds, so it would never move; use magnet_every=N, with N the length of a round in updates"
        )


def measuring_points(updates: int, measure_at: Iterable[int] | None = None) -> IntArray:
    """Numbers of updates at which to measure.

    Args:
        updates: Updates of the run, at least 0.
        measure_at: Wanted numbers; those beyond the run are left out. By default about 60, evenly spaced, the start and
            the end included.

    Returns:
        Increasing integers from 0 to ``updates``.

    Raises:
        ConfigError: Something that is not an integer of at least 0.
    """
    checked_integer("updates", updates, 0)
    if measure_at is None:
        return np.unique(np.linspace(0, updates, min(60, updates + 1)).round().astype(np.int64))
    if not isinstance(measure_at, Iterable):
        raise ConfigError(f"measure_at is {measure_at!r}, expected numbers of updates; write [{measure_at!r}]")
    wanted = [checked_integer(f"measure_at[{place}]", number, 0) for place, number in enumerate(measure_at)]
    return np.unique(np.array([number for number in wanted if number <= updates], dtype=np.int64))


def run_exact(
    method: Method,
    game: ExtensiveGame,
    updates: int = 1000,
    *,
    initial: FloatArray | None = None,
    tremble: float = 0.0,
    average: bool = False,
    measure_at: Iterable[int] | None = None,
    measure: Callable[[FloatArray], float] | None = None,
    progress: bool = False,
) -> ExtensiveTrace:
    r"""Run a method's exact updates in behavioural form.

    One update is one pass over the game: at every information state I, of both players at once,
    ``π_{k+1}(·|I) = update(π_k(·|I), ρ(·|I), Q_k(I, ·))`` with the method's own update and
    ``Q_k(I, a) = E[payoff | I reached, a]`` on the scale ``(chips / payoff_bound + 1)/2`` in [0, 1]. For MPO-RT, whose
    magnet enters the reward, Q also holds what both players pay later, ``α KL(π_k‖ρ)`` at each information state on the
    way.

    Args:
        method: Opponent, objective, magnet schedule, prediction.
        game: The listed game.
        updates: Number of updates, at least 0.
        initial: Starting policy, first magnet and reference, shape (I, A); uniform by default. As in matrix games, an
            action of probability zero stays there.
        tremble: Part ε of uniform play mixed into the magnet at each move, ``ρ ← (1 − ε) π + ε uniform``, in [0, 1).
            Zero is the method as published. Above zero, actions that became rare keep being tried by the magnet, so
            that answers to them are not forgotten; the limit moves by an amount that vanishes with ε.
        average: Also measure the average policy.
        measure_at: Numbers of updates at which to measure; by default `measuring_points`.
        measure: Exploitability of a policy (I, A); OpenSpiel's function by default.
        progress: Show a progress bar on stderr.

    Returns:
        The trace.

    Raises:
        ConfigError: Updates, or numbers of updates to measure at, that are not integers of at least 0; a method without
            behavioural form; tremble outside [0, 1).
        GameError: Not a listed game, or a starting policy that is none.
        NonFiniteLossError: An update gave NaN, which no setting should.

    Source: arXiv:2410.16714, Algorithm 1, and arXiv:2206.05825, section 5 (behavioural form).
    """
    check_extensive(game)
    points = measuring_points(updates, measure_at)
    check_tremble(tremble)
    behavioural_form(method)
    start = game.uniform_policy() if initial is None else game.check_policy(initial, "initial")
    state = _State(method, game, start, tremble)
    measure = Exploitability(game) if measure is None else measure
    wanted = set(points.tolist())
    last, averages = [], []

    def look(update: int) -> None:
        if update in wanted:
            last.append(measure(np.exp(state.log_policy)))
            if average:
                averages.append(measure(state.form.policy_of_plan(state.plan_sum)))

    look(0)
    for update in counted(updates, progress, f"{game.name} {method.name}", leave=False):
        state.update(update)
        if average:
            state.plan_sum += state.form.plan(np.exp(state.log_policy))
        look(update)
    return ExtensiveTrace(
        method=method.name,
        game=game.name,
        updates=points,
        exploitability=np.array(last),
        average_exploitability=np.array(averages) if average else None,
        policy=np.exp(state.log_policy),
        magnet=np.exp(state.log_magnet),
        magnet_moves=np.array(state.moves, dtype=np.int64),
    )


def check_tremble(tremble: float) -> None:
    """Refuse a tremble outside [0, 1)."""
    if not 0 <= number_or_nan(tremble) < 1:
        raise ConfigError(f"tremble is {tremble!r}, expected at least 0 and below 1; for instance 0.001")


class _State:
    """Policy and magnet at every information state, and one update of both."""

    def __init__(self, method: Method, game: ExtensiveGame, start: FloatArray, tremble: float) -> None:
        self.method, self.game, self.tremble = method, game, tremble
        self.objective = behavioural_form(method)
        self.form = SequenceForm(game)
        self.log_policy = self.log_magnet = self.log_reference = log_probabilities(start)
        self.plan_sum = self.form.plan(start)
        self.moves: list[int] = []
        self._previous: FloatArray | None = None

    def update(self, update: int) -> None:
        values = self._values(self.log_policy)
        if self.method.prediction == "optimistic":
            values, self._previous = values if self._previous is None else 2 * values - self._previous, values
        after = self._step(values)
        if self.method.prediction == "extragradient":
            after = self._step(self._values(after))
        if not np.isfinite(after.max(axis=1)).all():
            raise NonFiniteLossError(f"the policy after update {update} is not finite; use a smaller step size")
        self.log_policy = after
        rate = self.method.magnet.rate(MagnetClock(update=update))
        if rate > 0:
            self._move_magnet(rate)
            self.moves.append(update)

    def _step(self, values: FloatArray) -> FloatArray:
        with np.errstate(invalid="ignore", over="ignore"):  # illegal actions: -inf minus -inf, masked by the objective
            return self.objective.exact_update(self.log_policy, self.log_magnet, values)

    def _values(self, log_policy: FloatArray) -> FloatArray:
        policy = np.exp(log_policy)
        fee = self._fee(policy, log_policy) if isinstance(self.objective, RewardTransformedPolicyGradient) else None
        values = self.form.win_values(policy, self._opponent(log_policy), fee)
        # An illegal action must not be the best of its row, from which objectives measure.
        return np.where(self.game.legal, values, -1.0)

    def _fee(self, policy: FloatArray, log_policy: FloatArray) -> FloatArray:
        present = policy > 0
        ratio = np.subtract(log_policy, self.log_magnet, where=present, out=np.zeros_like(policy))
        return self.method.objective.settings["magnet_strength"] * (policy * ratio).sum(axis=1)

    def _opponent(self, log_policy: FloatArray) -> FloatArray | None:
        role = self.method.opponent.role
        if role == "current":
            return None
        if role == "mixture":
            weight = self.method.opponent.reference_weight
            return np.exp(log_mixture(log_policy, self.log_reference, weight))
        return np.exp(self.log_magnet if role == "magnet" else self.log_reference)

    def _move_magnet(self, rate: float) -> None:
        self.log_magnet = log_mixture(self.log_magnet, self.log_policy, rate)
        if self.tremble > 0:
            mixed = (1.0 - self.tremble) * np.exp(self.log_magnet) + self.tremble * self.game.uniform_policy()
            self.log_magnet = log_probabilities(mixed)
