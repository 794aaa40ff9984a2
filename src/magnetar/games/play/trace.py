"""What a run did: the trace that it returns, and the recorder that fills it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import NonFiniteLossError
from magnetar.games.gaps import GAME_VALUE
from magnetar.numerics import max_last

__all__ = ["Recorder", "Trace"]

FloatArray = NDArray[np.float64]

LONGEST_BUFFER = 256
WIDE_STATE = 64  # numbers; from there on a running sum row by row beats NumPy's own
BUFFERED_NUMBERS = 2**16  # half a megabyte: the buffers must not push the game out of the cache


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        return (
            f"Trace({self.method} on {self.game}, {len(self.duality_gap) - 1} updates, gap {self.duality_gap[-1]:.2e} "
            f"after {self.evaluations[-1]} evaluations)"
        )

    @property
    def policy(self) -> FloatArray:
        """Last policy, shape (A,), probabilities."""
        return np.exp(self.log_policy)

    def evaluations_to(self, gap: float) -> int | None:
        """Evaluations of q spent when the current policy first had a duality gap of at most ``gap``; None if never."""
        reached = np.flatnonzero(self.duality_gap <= gap)
        return int(self.evaluations[reached[0]]) if len(reached) else None


class Recordable(Protocol):
    """What the recorder reads of a state; the arrays have shape (A,), or (N, A) for N games at once."""

    policy: FloatArray
    payoff: FloatArray
    log_policy: FloatArray
    log_magnet: FloatArray
    evaluations: int
    duels: int


class Recorder:
    """Curves of a run, and running averages; by linearity the average's payoffs are the average of the payoffs.

    States are kept in a buffer and worked up many at a time: one by one, this would cost more than a small game's
    update.
    """

    def __init__(self, updates: int, state: Recordable, keep_policies: bool) -> None:
        shape = state.policy.shape
        self.gap = np.empty((updates + 1, *shape[:-1]))
        self.average_gap = np.empty((updates + 1, *shape[:-1]))
        self.evaluations = np.zeros(updates + 1, dtype=np.int64)
        self.duels = np.zeros(updates + 1, dtype=np.int64)
        self.policies = np.empty((updates + 1, *shape)) if keep_policies else None
        self.magnets = [np.exp(state.log_magnet)] if keep_policies else None
        self.moves: list[int] = []
        size = min(updates + 1, max(1, min(LONGEST_BUFFER, BUFFERED_NUMBERS // state.policy.size)))
        self._policy_buffer = np.empty((size, *shape))
        self._payoff_buffer = np.empty((size, *shape))
        self._policy_sum = np.zeros(shape)
        self._payoff_sum = np.zeros(shape)
        self._next = 0  # states entered so far; the first of the buffer's is this minus those in it
        self._in_buffer = 0
        self.record(0, state)

    def record(self, update: int, state: Recordable) -> None:
        """Enter the state after ``update``."""
        self._policy_buffer[self._in_buffer] = state.policy
        self._payoff_buffer[self._in_buffer] = state.payoff
        self.evaluations[update] = state.evaluations
        self.duels[update] = state.duels
        self._next = update + 1
        self._in_buffer += 1
        if self._in_buffer == len(self._policy_buffer):
            self.work_up()

    def work_up(self) -> None:
        """Empty the buffer into the curves.

        Raises:
            NonFiniteLossError: A state in it is not finite.
        """
        if not self._in_buffer:
            return
        policies, payoffs = self._policy_buffer[: self._in_buffer], self._payoff_buffer[: self._in_buffer]
        first = self._next - self._in_buffer
        best = max_last(payoffs)
        if not np.isfinite(best).all():
            where = tuple(np.argwhere(~np.isfinite(best))[0])
            raise NonFiniteLossError(f"the payoffs after update {first + where[0]} are not finite: {payoffs[where]}")
        span = slice(first, self._next)
        self.gap[span] = np.maximum(0.0, 2.0 * (best - GAME_VALUE))
        if self.policies is not None:
            self.policies[span] = policies
        self._policy_sum += policies.sum(axis=0)
        payoffs[:1] += self._payoff_sum
        if payoffs[0].size < WIDE_STATE:
            np.cumsum(payoffs, axis=0, out=payoffs)
        else:  # NumPy takes one column after another, a cache line for each number
            for before, after in pairwise(payoffs):
                np.add(before, after, out=after)
        self._payoff_sum[:] = payoffs[-1]
        states = np.arange(first + 1, self._next + 1).reshape(-1, *(1,) * (payoffs.ndim - 2))
        average_best = max_last(payoffs) / states
        self.average_gap[span] = np.maximum(0.0, 2.0 * (average_best - GAME_VALUE))
        self._in_buffer = 0

    def record_move(self, update: int, state: Recordable) -> None:
        """Enter a move of the magnet after ``update``."""
        self.moves.append(update)
        if self.magnets is not None:
            self.magnets.append(np.exp(state.log_magnet))

    def trace(self, method: str, game: str, state: Recordable, index: int | None = None) -> Trace:
        """All that was recorded, cut to the updates that were made; of one of the games, if there are several."""
        self.work_up()
        # The axes are (updates, A) for one game and (updates, N, A) for several.
        made = slice(self._next) if index is None else (slice(self._next), index)
        of = ... if index is None else index
        average = self._policy_sum[of]
        return Trace(
            method=method,
            game=game,
            duality_gap=self.gap[made],
            average_gap=self.average_gap[made],
            evaluations=self.evaluations[: self._next],
            duels=self.duels[: self._next],
            log_policy=state.log_policy[of],
            average_policy=average / average.sum(),
            log_magnet=state.log_magnet[of],
            magnet_moves=np.array(self.moves, dtype=np.int64),
            policies=None if self.policies is None else self.policies[made],
            magnets=None if self.magnets is None else np.array([magnet[of] for magnet in self.magnets]),
        )
