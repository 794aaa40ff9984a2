"""Token sequences that begin alike, laid out as trees, so that a causal model reads what they share once.

Sorted sequences are a tree already: each one leaves the path of the one before it where the two begin to differ. A row
holds such a tree from its root on, `[shared | rest of the first | rest of the second | …]`; positions go on from where
a branch left, and a token sees its ancestors and itself. Rows grow until the attention over the whole row costs more
than the sharing saves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["RowPlan", "TreeRows", "lay_out_rows", "plan_rows", "tree_masks"]

TokenArray = NDArray[np.int32]
IntArray = NDArray[np.int64]
MOST_IN_A_ROW = 128  # sequences; bounds the work of planning


@dataclass(frozen=True)
class RowPlan:
    """Sequences that share a row.

    Attributes:
        members: Indices of the sequences, in lexicographic order.
        shared: How many tokens at its beginning a sequence shares with the one before it; 0 for the first.
        length: Tokens in the row.
    """

    members: tuple[int, ...]
    shared: tuple[int, ...]
    length: int

    @property
    def is_tree(self) -> bool:
        """Whether the row holds more than one sequence, and so needs a mask of its own."""
        return len(self.members) > 1


@dataclass(frozen=True)
class TreeRows:
    """R rows of L tokens, and where the N sequences in them end.

    Attributes:
        input_ids: Shape (R, L).
        position_ids: Shape (R, L); depth in the tree.
        end_RL: One past the last column that may see the token in this column; a padding token sees itself alone.
        row_N: The row of each sequence.
        column_N: The column of its last token.
        sequence_N: Its index.
    """

    input_ids: Tensor
    position_ids: Tensor
    end_RL: Tensor
    row_N: Tensor
    column_N: Tensor
    sequence_N: IntArray


def plan_rows(sequences: Sequence[TokenArray], max_row: int, even_length: float) -> list[RowPlan]:
    """Divide sequences into rows such that reading them costs least.

    A row of L tokens costs ``L + L² / even_length``: layers, and attention over the whole row. The division is the
    best one among those that keep the lexicographic order (dynamic programming).

    Args:
        sequences: N different sequences of at least one token.
        max_row: Longest row, tokens; a longer sequence gets a row of its own.
        even_length: Row length at which attention costs as much as all the rest of the model, tokens.

    Returns:
        The rows; every sequence is in one of them.
    """
    if not sequences:
        return []
    # As big-endian bytes, token ids sort like numbers.
    keys = [np.asarray(sequence, dtype=">u4").tobytes() for sequence in sequences]
    order = sorted(range(len(sequences)), key=keys.__getitem__)
    shared = np.array([0, *(_common(sequences[a], sequences[b]) for a, b in pairwise(order))])
    lengths = np.array([len(sequences[at]) for at in order])
    tokens = np.cumsum(lengths - shared)
    alone = lengths - tokens  # tokens[j] + alone[i] is the length of the row of the sequences i to j

    best = np.zeros(len(order) + 1)
    begin = np.zeros(len(order), dtype=np.int64)
    for j in range(len(order)):
        lo = max(0, j + 1 - MOST_IN_A_ROW)
        length = tokens[j] + alone[lo : j + 1]
        cost = best[lo : j + 1] + length + length * (length / even_length)
        cost[:-1][length[:-1] > max_row] = np.inf
        at = int(cost.argmin())
        best[j + 1], begin[j] = cost[at], lo + at

    rows = []
    stop = len(order)
    while stop:
        start = int(begin[stop - 1])
        members = tuple(order[start:stop])
        kept = (0, *(int(count) for count in shared[start + 1 : stop]))
        rows.append(RowPlan(members, kept, int(tokens[stop - 1] + alone[start])))
        stop = start
    return rows[::-1]


def lay_out_rows(
    sequences: Sequence[TokenArray], rows: Sequence[RowPlan], *, pad_token_id: int, device: torch.device | str = "cpu"
) -> TreeRows:
    """Lay planned rows out as tensors.

    Args:
        sequences: As for `plan_rows`.
        rows: The rows of one forward pass.
        pad_token_id: Fills shorter rows up; nothing looks at it.
        device: Where the tensors are made.
    """
    width = max(row.length for row in rows)
    tokens = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    positions = np.zeros_like(tokens)
    end = np.tile(np.arange(1, width + 1), (len(rows), 1))
    place: list[tuple[int, int, int]] = []
    for r, row in enumerate(rows):
        path = np.zeros(0, dtype=np.int64)  # columns from the root to the end of the sequence laid last
        column = 0
        for member, shared in zip(row.members, row.shared, strict=True):
            sequence = sequences[member]
            new = np.arange(column, column + len(sequence) - shared)
            end[r, path[shared:]] = column  # this sequence leaves the path here
            tokens[r, new], positions[r, new] = sequence[shared:], np.arange(shared, len(sequence))
            path = np.concatenate([path[:shared], new])
            column += len(new)
            place.append((r, int(path[-1]), member))
        end[r, path] = column
    row_n, column_n, sequence_n = np.array(place).T
    return TreeRows(
        input_ids=torch.from_numpy(tokens).to(device),
        position_ids=torch.from_numpy(positions).to(device),
        end_RL=torch.from_numpy(end).to(device),
        row_N=torch.from_numpy(row_n).to(device),
        column_N=torch.from_numpy(column_n).to(device),
        sequence_N=sequence_n,
    )


def tree_masks(rows: TreeRows, window: int | None = None) -> Tensor:
    """Who sees whom: a token sees its ancestors and itself.

    Args:
        rows: The rows.
        window: Sliding window in tokens, by depth in the tree; None for full attention.

    Returns:
        Shape (R, 1, L, L), boolean, True where the query (first L) sees the key (second L).
    """
    column = torch.arange(rows.input_ids.shape[1], device=rows.input_ids.device)
    # The descendants of a token stand right behind it, up to its end.
    visible = (column[:, None] >= column) & (column[:, None] < rows.end_RL.unsqueeze(1))
    if window is not None:
        visible &= rows.position_ids.unsqueeze(2) - rows.position_ids.unsqueeze(1) < window
    return visible.unsqueeze(1)


def _common(first: TokenArray, second: TokenArray) -> int:
    """How many tokens two sequences share at their beginning."""
    length = min(len(first), len(second))
    different = first[:length] != second[:length]
    at = int(different.argmax()) if length else 0
    return at if length and different[at] else length
