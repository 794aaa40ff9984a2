"""Exact values of every action at every information state, from one matrix–vector product per pass."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from magnetar.games.extensive.tree import ExtensiveGame

__all__ = ["SequenceForm"]

FloatArray = NDArray[np.float64]

LARGEST_DENSE = 100_000  # entries; below, BLAS on zeros is faster than the overhead of a sparse product
UNREACHED = 1e-250  # below it, ratios of products of probabilities are no longer numbers to trust


class SequenceForm:
    r"""The game as one matrix W that maps both players' realisation plans to payoffs and to reach.

    With ``x(s)`` the product of a player's own probabilities along sequence s, the chips that player's sequences earn
    against the other's are ``g_i = W_i x_{-i}`` (chance included), and the reach of an information state by everyone
    else is ``c(I) = Σ_{h ∈ I} chance(h) x_{-i}(h)``. Both are linear in the plans, hence one product; a pass upward
    over the levels then adds what follows each decision: ``Q_i(I, a) = v_i(I, a) / c(I)``.

    Args:
        game: The listed game.
    """

    def __init__(self, game: ExtensiveGame) -> None:
        self.game = game
        found, actions = game.legal.shape
        self.sequences = found * actions + 2
        own, other = game.terminal_sequences.T
        rows = np.concatenate([own, other, self.sequences + game.visit_infostate])
        columns = np.concatenate([other, own, game.visit_opponent_sequence])
        entries = np.concatenate([game.terminal_payoff, -game.terminal_payoff, game.visit_chance])
        shape = (self.sequences + found, self.sequences)
        matrix = coo_array((entries, (rows, columns)), shape=shape).tocsr()
        dense = shape[0] * shape[1] <= LARGEST_DENSE
        self._matrix = matrix.toarray() if dense else matrix
        fees = matrix[self.sequences :].T.tocsr()
        self._fees_to_sequences = fees.toarray() if dense else fees
        self._parent = np.concatenate([level.parent for level in game.levels])

    def plan(self, policy_IA: FloatArray) -> FloatArray:
        """Realisation plan of both players.

        Args:
            policy_IA: Behavioural policy, shape (I, A), zero at illegal actions.

        Returns:
            Product of the owner's probabilities up to and including each sequence, shape (S,); the last two are the
            players' empty sequences, 1.
        """
        plan = np.empty(self.sequences)
        plan[-2:] = 1.0
        table = plan[:-2].reshape(policy_IA.shape)
        for level in self.game.levels:
            np.multiply(plan[level.parent][:, None], policy_IA[level.start : level.stop],
                        out=table[level.start : level.stop])  # fmt: skip
        return plan

    def policy_of_plan(self, plan: FloatArray) -> FloatArray:
        """Behavioural policy that plays a realisation plan: each sequence over its parent; uniform where unreached.

        Args:
            plan: Shape (S,), for instance an average of plans.

        Returns:
            Shape (I, A).
        """
        table = plan[:-2].reshape(self.game.legal.shape)
        total = table.sum(axis=1, keepdims=True)
        return np.where(total > 0, table / np.where(total > 0, total, 1.0), self.game.uniform_policy())

    def values(
        self, policy_IA: FloatArray, opponent_IA: FloatArray | None = None, fee_I: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Value of every action given that its information state is reached, and of the whole game, in chips.

        Args:
            policy_IA: How each player goes on after the action, shape (I, A).
            opponent_IA: How each player plays when it is the other one's opponent; the same policy by default.
            fee_I: Chips that the player to move pays to the other at each information state, shape (I,); none by
                default. The fee at an information state itself is paid whatever the action, and is not part of its Q.

        Returns:
            Q, shape (I, A), to the player who moves there, zero at illegal actions and where chance and the opponent
            never lead; and the value of the game to player 0 and to player 1, shape (2,).
        """
        plan = self.plan(policy_IA if opponent_IA is None else opponent_IA)
        reached = self._matrix @ plan
        earned, reach = reached[: self.sequences], reached[self.sequences :]
        if fee_I is not None:
            earned += self._fees_to_sequences @ (plan[self._parent] * fee_I)
        table = earned[:-2].reshape(policy_IA.shape)
        for level in reversed(self.game.levels):
            rows = slice(level.start, level.stop)
            value = np.einsum("ia,ia->i", table[rows], policy_IA[rows])
            if fee_I is not None:
                value -= reach[rows] * fee_I[rows]
            earned[level.distinct_parent] += np.add.reduceat(value, level.first_of_parent)
        known = reach > UNREACHED
        return table * (known / np.where(known, reach, 1.0))[:, None], earned[-2:]

    def win_values(
        self, policy_IA: FloatArray, opponent_IA: FloatArray | None = None, fee_I: FloatArray | None = None
    ) -> FloatArray:
        """The same Q on the scale of methods, ``(Q / payoff_bound + 1) / 2`` in [0, 1]; 1/2 where nothing is known.

        Args:
            policy_IA: As in `values`.
            opponent_IA: As in `values`.
            fee_I: As in `values`, but on the scale of methods; values may then leave [0, 1].

        Returns:
            Shape (I, A).
        """
        chips_per_unit = 2.0 * self.game.payoff_bound
        chips, _ = self.values(policy_IA, opponent_IA, None if fee_I is None else fee_I * chips_per_unit)
        chips /= chips_per_unit
        chips += 0.5
        return chips

    def best_response_values(self, policy_IA: FloatArray) -> FloatArray:
        """What each player could earn at most against the other's policy, shape (2,), chips per game."""
        earned = (self._matrix @ self.plan(policy_IA))[: self.sequences]
        table = earned[:-2].reshape(policy_IA.shape)
        for level in reversed(self.game.levels):
            rows = slice(level.start, level.stop)
            value = np.where(self.game.legal[rows], table[rows], -np.inf).max(axis=1)
            earned[level.distinct_parent] += np.add.reduceat(value, level.first_of_parent)
        return earned[-2:]

    def nash_conv(self, policy_IA: FloatArray) -> float:
        """What both players together could gain by best responses, chips per game; twice the exploitability.

        Equal to OpenSpiel's ``nash_conv`` (a test compares), and cheap enough for every update.
        """
        return float(self.best_response_values(policy_IA).sum())
