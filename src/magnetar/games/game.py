"""The preference game: a validated matrix of win probabilities, its equilibria and its gaps."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from magnetar.errors import GameError
from magnetar.games import gaps
from magnetar.games.checks import number_array, number_or_nan
from magnetar.games.equilibrium import linear_program_equilibrium, newton_regularized_equilibrium

__all__ = ["PreferenceGame"]

FloatArray = NDArray[np.float64]

SUM_TOLERANCE = 1e-6
SMALLEST_STRENGTH = 1e-100  # payoffs over it, and their squares, stay within float64


@dataclass(frozen=True, eq=False)
class PreferenceGame:
    r"""Symmetric constant-sum game in which ``P[i, j]`` is the probability that action i beats action j.

    Its value is 1/2. No order of the actions is assumed: i ≻ j ≻ k ≻ i is allowed.

    Args:
        P: Win probabilities, shape (A, A), in [0, 1], with ``P + Pᵀ = 1`` to within 1e-6 and hence 1/2 on the diagonal.
            Stored as a read-only float64 copy; what a pair's sum lacks of 1 is shared by its two orders.
        actions: Names of the actions; "0", "1", … by default.
        name: Name of the game in tables and plots.

    Raises:
        GameError: Not a square matrix, an entry outside [0, 1] or not finite, orders that contradict each other, or
            action names that are too many, too few or repeated.
    """

    P: FloatArray
    actions: tuple[str, ...]
    name: str

    def __init__(self, P: ArrayLike, actions: Sequence[str] | None = None, name: str | None = None) -> None:
        win_prob_AA = _checked_win_prob(P)
        names = _checked_names(range(len(win_prob_AA)) if actions is None else actions, len(win_prob_AA))
        win_prob_AA.flags.writeable = False
        object.__setattr__(self, "P", win_prob_AA)
        object.__setattr__(self, "actions", names)
        object.__setattr__(self, "name", f"game of {len(names)} actions" if name is None else name)

    def __repr__(self) -> str:
        return f"PreferenceGame({self.name!r}, {self.num_actions} actions)"

    @property
    def num_actions(self) -> int:
        """Number of actions, at least 1."""
        return len(self.actions)

    def payoff(self, pi: ArrayLike) -> FloatArray:
        """What each action wins against a policy: ``q = P π``.

        Args:
            pi: Probabilities, shape (A,).

        Returns:
            Shape (A,), in [0, 1].

        Raises:
            GameError: Not a distribution over the game's actions.
        """
        return self.P @ self.distribution(pi)

    def equilibrium(self) -> FloatArray:
        r"""Symmetric Nash equilibrium by a linear programme (HiGHS), independent of every method.

        Maximises v subject to ``Pᵀπ ≥ v`` and π in the simplex.

        Returns:
            π*, shape (A,), non-negative, sums to one; one of them where several exist.

        Raises:
            GameError: The solver reports failure.
        """
        return linear_program_equilibrium(self.P)

    def duality_gap(self, pi: ArrayLike) -> float:
        r"""Duality gap, ``max_π1 V(π1, π) − min_π2 V(π, π2) = 2 (max_y q_y(π) − 1/2)``.

        Args:
            pi: Probabilities, shape (A,).

        Returns:
            In [0, 1]; zero only at an equilibrium.

        Raises:
            GameError: Not a distribution over the game's actions.
        """
        return gaps.duality_gap(self.payoff(pi))

    def exploitability(self, pi: ArrayLike) -> float:
        """What a best response wins against a policy beyond the game's value: half the duality gap.

        Args:
            pi: Probabilities, shape (A,).

        Returns:
            In [0, 1/2].

        Raises:
            GameError: Not a distribution over the game's actions.
        """
        return self.duality_gap(pi) / 2.0

    def regularized_gap(self, pi: ArrayLike, magnet: ArrayLike, strength: float) -> float:
        r"""Duality gap in the game regularised towards a magnet.

        ``gap_α(π) = 2 (α log Σ_y ρ_y exp(q_y(π)/α) + α KL(π‖ρ)) − 1``.

        Args:
            pi: Probabilities, shape (A,).
            magnet: ρ, probabilities, shape (A,).
            strength: α, positive, in units of win probability per nat.

        Returns:
            At least 0, zero only at the regularised equilibrium; inf where ``pi`` has mass that ``magnet`` lacks.

        Raises:
            GameError: Not distributions over the game's actions, or a strength below 1e-100, whose inverse squared
                leaves the range of float64.
        """
        policy = self.distribution(pi)
        log_magnet = gaps.log_probabilities(self.distribution(magnet, "magnet"))
        _check_strength(strength)
        return gaps.regularized_gap(gaps.log_probabilities(policy), self.P @ policy, log_magnet, strength)

    def regularized_equilibrium(self, magnet: ArrayLike, strength: float) -> FloatArray:
        r"""Equilibrium of the game regularised towards a magnet: the solution of ``π ∝ ρ exp(q(π)/α)``.

        By damped Newton on the logits (see `newton_regularized_equilibrium`), to a regularised gap of at most 1e-13 and
        usually to rounding error.

        Args:
            magnet: ρ, probabilities, shape (A,); an action of probability zero stays there.
            strength: α, positive, in units of win probability per nat.

        Returns:
            π*_α, shape (A,), non-negative, sums to one.

        Raises:
            GameError: Not a distribution over the game's actions, a strength below 1e-100, or one so small that the gap
                cannot be reached.
        """
        log_magnet = gaps.log_probabilities(self.distribution(magnet, "magnet"))
        _check_strength(strength)
        return np.exp(newton_regularized_equilibrium(self.P, log_magnet, strength))

    def distribution(self, pi: ArrayLike, role: str = "policy") -> FloatArray:
        """Check that ``pi`` is a distribution over this game's actions, and return it as exactly one.

        Args:
            pi: Probabilities, shape (A,), summing to one within 1e-6.
            role: What it is, for the error message.

        Returns:
            A new float64 array, shape (A,), divided by its sum.

        Raises:
            GameError: Wrong shape, a negative or non-finite entry, or a sum that is not one.
        """
        policy = number_array(pi, role)
        if policy.shape != (self.num_actions,):
            raise GameError(
                f"{role} has shape {policy.shape}, expected ({self.num_actions},): one probability an action"
            )
        if not np.isfinite(policy).all() or policy.min() < 0:
            worst = int(np.flatnonzero(~(policy >= 0) | ~np.isfinite(policy))[0])
            raise GameError(f"{role}[{worst}] = {policy[worst]}, expected a probability in [0, 1]")
        total = float(policy.sum())
        if abs(total - 1.0) > SUM_TOLERANCE:
            raise GameError(f"{role} sums to {total:.9g}, expected 1; divide it by its sum")
        return policy / total


def _checked_names(names: Any, count: int) -> tuple[str, ...]:
    """One name for each action, or an error that says what is wrong."""
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise GameError(f"actions is {names!r}, expected a list of {count} names, one for each action")
    checked = tuple(map(str, names))
    if len(checked) != count:
        raise GameError(f"{len(checked)} action names for a matrix of {count} actions, expected one name for each")
    if len(set(checked)) < count:
        repeated = next(name for name, times in Counter(checked).items() if times > 1)
        raise GameError(f"two actions are named {repeated!r}, expected a name of its own for each; number them")
    return checked


def _checked_win_prob(values: Any) -> FloatArray:
    """Own copy of a valid matrix, its two orders averaged; or an error that names the worst entry."""
    matrix = number_array(values, "P")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise GameError(f"P has shape {matrix.shape}, expected a square matrix (A, A) with at least one action")
    finite = np.isfinite(matrix)
    if not finite.all():
        i, j = _index_of_max(~finite)
        raise GameError(f"P[{i},{j}] = {matrix[i, j]}, expected a finite number in [0, 1]")
    outside = np.maximum(-matrix, matrix - 1.0)
    if outside.max() > 0:
        i, j = _index_of_max(outside)
        raise GameError(
            f"P[{i},{j}] = {matrix[i, j]:.9g}, expected a win probability in [0, 1]{_way_from_payoffs(matrix)}"
        )
    total = matrix + matrix.T
    deviation = np.abs(total - 1.0)
    if deviation.max() > SUM_TOLERANCE:
        i, j = _index_of_max(deviation)
        if i == j:
            raise GameError(f"P[{i},{i}] = {matrix[i, i]:.9g}, expected 0.5: an action ties with itself")
        raise GameError(
            f"P[{i},{j}] + P[{j},{i}] = {total[i, j]:.9g}, expected 1; average both orders, (P + 1 - P.T) / 2, or wrap "
            "the judge so that it does"
        )
    return matrix + (1.0 - total) / 2.0


def _way_from_payoffs(matrix: FloatArray) -> str:
    """What to do with a matrix in another unit, if it looks like one."""
    largest = float(np.abs(matrix).max())
    if np.abs(matrix + matrix.T).max() <= SUM_TOLERANCE * largest:
        return f"; these look like payoffs of a zero-sum game: use 0.5 + matrix / {2 * largest:g}"
    if np.abs(matrix + matrix.T - 100.0).max() <= 100 * SUM_TOLERANCE:
        return "; these look like percentages: divide by 100"
    return ""


def _index_of_max(values: NDArray[Any]) -> tuple[int, int]:
    i, j = np.unravel_index(int(np.argmax(values)), cast("tuple[int, int]", values.shape))
    return int(i), int(j)


def _check_strength(strength: float) -> None:
    if not 0 < number_or_nan(strength) < float("inf"):
        raise GameError(f"strength is {strength!r}, expected a positive finite number (α, for instance 0.1)")
    if strength < SMALLEST_STRENGTH:
        raise GameError(
            f"strength is {strength:g}, expected at least {SMALLEST_STRENGTH:g}; for the game without a magnet use "
            "duality_gap() and equilibrium()"
        )
