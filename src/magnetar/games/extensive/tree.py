"""A two-player zero-sum game of imperfect information, listed once as flat arrays.

Axis letters of this package, beside those of `magnetar.types`:

| letter | meaning |
|---|---|
| I | information states of both players, ordered by their owner's own depth |
| A | actions, by OpenSpiel's number; illegal ones have probability zero |
| N | histories (nodes of the game tree), every one after its parent |
| S | sequences: (information state, action) pairs, then one empty one each |
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import GameError
from magnetar.games.checks import check_kind, number_array

__all__ = ["CHANCE", "TERMINAL", "ExtensiveGame", "Level", "check_extensive", "list_game"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CHANCE = 2
TERMINAL = 3


@dataclass(frozen=True, eq=False)
class Level:
    """Information states whose owner has acted equally often before: one step of every pass over the game.

    Attributes:
        start: First information state of the level.
        stop: One after the last.
        parent: Sequence of the owner that leads to each, shape (stop − start,), sorted.
        distinct_parent: The different ones among them.
        first_of_parent: Where each of those starts within the level.
    """

    start: int
    stop: int
    parent: IntArray
    distinct_parent: IntArray
    first_of_parent: IntArray


@dataclass(frozen=True, eq=False)
class ExtensiveGame:
    """A game of perfect recall as arrays. Made by `magnetar.games.extensive.load_game`.

    Payoffs inside the arrays are the game's own (chips). Methods see them mapped from ``[−payoff_bound, payoff_bound]``
    to [0, 1], so that η and α have the units they have in a preference game.

    Attributes:
        name: OpenSpiel's name of the game, parameters included.
        openspiel: The pyspiel game, for OpenSpiel's own functions.
        keys: Information-state string of each information state, I of them.
        infostate_player: Whose each is, 0 or 1, shape (I,).
        legal: Which actions are allowed, shape (I, A).
        levels: Ranges of information states by own depth, the first decisions first.
        payoff_bound: Largest absolute payoff at any end of the game, chips.
        terminal_sequences: Last sequence of either player at each end, shape (ends, 2).
        terminal_payoff: Chance's probability times player 0's payoff there, shape (ends,).
        visit_infostate: Information state of each decision history, shape (decisions,).
        visit_opponent_sequence: Last sequence of the other player there.
        visit_chance: Chance's probability of the way there.
        node_kind: 0 or 1 for the player to move, `CHANCE`, `TERMINAL`, shape (N,); the root is history 0.
        node_row: Information state of a decision, row of ``chance_cumulative`` of a chance node, else −1.
        child: Next history by action or by outcome, shape (N, widest node), −1 where there is none.
        chance_cumulative: Cumulative outcome probabilities, shape (chance nodes, most outcomes), padded with 1.
        node_payoff: Player 0's payoff at an end, zero elsewhere, shape (N,), chips.
    """

    name: str
    openspiel: Any
    keys: tuple[str, ...]
    infostate_player: IntArray
    legal: NDArray[np.bool_]
    levels: tuple[Level, ...]
    payoff_bound: float
    terminal_sequences: IntArray
    terminal_payoff: FloatArray
    visit_infostate: IntArray
    visit_opponent_sequence: IntArray
    visit_chance: FloatArray
    node_kind: IntArray
    node_row: IntArray
    child: IntArray
    chance_cumulative: FloatArray
    node_payoff: FloatArray

    @property
    def num_infostates(self) -> int:
        """Information states of both players."""
        return len(self.keys)

    @property
    def num_actions(self) -> int:
        """Columns of a policy: OpenSpiel's number of different actions."""
        return self.legal.shape[1]

    def uniform_policy(self) -> FloatArray:
        """Every legal action equally likely, shape (I, A)."""
        return self.legal / self.legal.sum(axis=1, keepdims=True)

    def check_policy(self, policy: FloatArray, name: str = "policy") -> FloatArray:
        """Refuse an array that is not a behavioural policy of this game.

        Args:
            policy: Shape (I, A), probabilities.
            name: How to call it in the message.

        Returns:
            The policy as float64.

        Raises:
            GameError: Wrong shape, a probability outside [0, 1] or of an illegal action, a row that does not sum to 1.
        """
        values = number_array(policy, name)
        if values.shape != self.legal.shape:
            raise GameError(
                f"{name} has shape {values.shape}, expected {self.legal.shape} for {self.name}: one row per "
                "information state, one column per action"
            )
        wrong = ~((values >= 0) & (values <= 1 + 1e-9)) | (~self.legal & (values != 0))
        if wrong.any():
            i, a = np.argwhere(wrong)[0]
            allowed = "a probability" if self.legal[i, a] else "0, because the action is not legal there"
            raise GameError(f"{name}[{i}, {a}] is {values[i, a]} at {self.keys[i]!r}, expected {allowed}")
        total = values.sum(axis=1)
        worst = int(np.abs(total - 1).argmax())
        if abs(total[worst] - 1) > 1e-6:
            raise GameError(f"{name}[{worst}] sums to {total[worst]} at {self.keys[worst]!r}, expected 1")
        return values


def check_extensive(game: ExtensiveGame) -> None:
    """Refuse what is not a listed game, for instance its name."""
    named = f"load_game({game!r})" if isinstance(game, str) else "load_game('kuhn_poker')"
    check_kind("game", game, ExtensiveGame, f"for instance {named}", GameError)


class _Listing:
    """What a walk over the tree collects; sequences are named by (information state, action) until all are known."""

    def __init__(self, max_infostates: int, max_histories: int) -> None:
        self.max_infostates, self.max_histories = max_infostates, max_histories
        self.number: dict[tuple[int, str], int] = {}
        self.parent: list[tuple[int, int]] = []
        self.depth: list[int] = []
        self.actions: list[list[int]] = []
        self.kind: list[int] = []
        self.row: list[int] = []
        self.payoff: list[float] = []
        self.children: list[list[tuple[int, int]]] = []
        self.chance: list[list[float]] = []
        self.ends: list[tuple[tuple[int, int], tuple[int, int], float]] = []
        self.visits: list[tuple[int, tuple[int, int], float]] = []

    def infostate(self, name: str, player: int, key: str, legal: list[int], last: tuple[int, int]) -> int:
        known = self.number.get((player, key))
        if known is None:
            known = self.number[player, key] = len(self.parent)
            if known >= self.max_infostates:
                raise GameError(
                    f"{name} has more than {self.max_infostates:,} information states, too many to list; choose a "
                    "smaller game (kuhn_poker has 12, leduc_poker 936) or raise max_infostates"
                )
            self.parent.append(last)
            self.depth.append(0 if last[0] < 0 else self.depth[last[0]] + 1)
            self.actions.append(legal)
        elif self.parent[known] != last:
            raise GameError(
                f"{name} has no perfect recall: player {player} can reach {key!r} after different decisions of its "
                "own, expected one way only; behavioural updates need perfect recall"
            )
        return known


def list_game(game: Any, name: str, max_infostates: int, max_histories: int) -> ExtensiveGame:
    """Walk a pyspiel game once and keep all that the updates need.

    Args:
        game: A sequential two-player zero-sum pyspiel game.
        name: Its name in messages.
        max_infostates: Refuse games with more information states.
        max_histories: Refuse games with more histories.

    Returns:
        The arrays.

    Raises:
        GameError: Too large, or without perfect recall.
    """
    listing = _Listing(max_infostates, max_histories)
    nowhere = (-1, 0), (-1, 1)  # the empty sequence of either player
    stack: list[tuple[Any, int, int, tuple[tuple[int, int], tuple[int, int]], float]] = [
        (game.new_initial_state(), -1, 0, nowhere, 1.0)
    ]
    while stack:
        state, parent, step, last, chance = stack.pop()
        node = len(listing.kind)
        if node >= max_histories:
            raise GameError(
                f"{name} has more than {max_histories:,} histories, too many to list; choose a smaller game or raise "
                "max_histories"
            )
        if parent >= 0:
            listing.children[parent].append((step, node))
        listing.children.append([])
        if state.is_terminal():
            _add(listing, TERMINAL, -1, float(state.returns()[0]))
            listing.ends.append((*last, chance * listing.payoff[-1]))
        elif state.is_chance_node():
            outcomes = state.chance_outcomes()
            _add(listing, CHANCE, len(listing.chance), 0.0)
            listing.chance.append([probability for _, probability in outcomes])
            for k, (outcome, probability) in enumerate(outcomes):
                stack.append((state.child(outcome), node, k, last, chance * probability))
        else:
            player, legal = state.current_player(), state.legal_actions()
            row = listing.infostate(name, player, state.information_state_string(), legal, last[player])
            _add(listing, player, row, 0.0)
            listing.visits.append((row, last[1 - player], chance))
            for action in legal:
                after = (row, action)
                stack.append((state.child(action), node, action, (after, last[1]) if player == 0 else (last[0], after),
                              chance))  # fmt: skip
    return _assemble(game, name, listing)


def _add(listing: _Listing, kind: int, row: int, payoff: float) -> None:
    listing.kind.append(kind)
    listing.row.append(row)
    listing.payoff.append(payoff)


def _assemble(game: Any, name: str, listing: _Listing) -> ExtensiveGame:
    if not listing.parent:
        raise GameError(f"{name} has no decisions, expected a game in which somebody moves")
    actions, found = int(game.num_distinct_actions()), len(listing.parent)
    order, levels = _order_levels(listing, actions)
    new = np.empty(found, dtype=np.int64)
    new[order] = np.arange(found)

    def sequence(pair: tuple[int, int]) -> int:
        return found * actions + pair[1] if pair[0] < 0 else int(new[pair[0]]) * actions + pair[1]

    by_old = list(listing.number)
    legal = np.zeros((found, actions), dtype=bool)
    for old, allowed in enumerate(listing.actions):
        legal[new[old], allowed] = True
    kind = np.array(listing.kind)
    row = np.array(listing.row)
    decision = kind < CHANCE
    row[decision] = new[row[decision]]
    payoff = np.array(listing.payoff)
    child = np.full((len(kind), max(step + 1 for rows in listing.children for step, _ in rows)), -1, dtype=np.int64)
    for node, rows in enumerate(listing.children):
        for step, below in rows:
            child[node, step] = below
    cumulative = np.ones((len(listing.chance), max(map(len, listing.chance), default=1)))
    for k, probabilities in enumerate(listing.chance):
        cumulative[k, : len(probabilities) - 1] = np.cumsum(probabilities)[:-1]
    return ExtensiveGame(
        name=name,
        openspiel=game,
        keys=tuple(by_old[old][1] for old in order),
        infostate_player=np.array([by_old[old][0] for old in order]),
        legal=legal,
        levels=levels,
        payoff_bound=float(np.abs(payoff).max()) or 1.0,
        terminal_sequences=np.array([(sequence(own), sequence(other)) for own, other, _ in listing.ends]),
        terminal_payoff=np.array([value for *_, value in listing.ends]),
        visit_infostate=new[[infostate for infostate, *_ in listing.visits]],
        visit_opponent_sequence=np.array([sequence(last) for _, last, _ in listing.visits]),
        visit_chance=np.array([probability for *_, probability in listing.visits]),
        node_kind=kind,
        node_row=row,
        child=child,
        chance_cumulative=cumulative,
        node_payoff=payoff,
    )


def _order_levels(listing: _Listing, actions: int) -> tuple[list[int], tuple[Level, ...]]:
    """Old numbers in their new order, by own depth and then by parent, and the levels in new numbers."""
    order: list[int] = []
    levels: list[Level] = []
    new: dict[int, int] = {}
    found = len(listing.parent)
    by_depth: list[list[int]] = [[] for _ in range(max(listing.depth) + 1)]
    for old, depth in enumerate(listing.depth):
        by_depth[depth].append(old)
    for members in by_depth:
        parents = {}
        for old in members:
            infostate, action = listing.parent[old]
            parents[old] = found * actions + action if infostate < 0 else new[infostate] * actions + action
        members.sort(key=lambda old: parents[old])
        parent = np.array([parents[old] for old in members])
        distinct, first = np.unique(parent, return_index=True)
        levels.append(Level(len(order), len(order) + len(members), parent, distinct, first))
        for old in members:
            new[old] = len(order)
            order.append(old)
    return order, tuple(levels)
