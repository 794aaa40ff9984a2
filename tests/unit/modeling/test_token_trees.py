"""Token trees against their definition: ancestors by tokens, the cheapest rows by trying all divisions."""

from itertools import product

import numpy as np
import pytest
import torch

from magnetar.modeling.token_trees import RowPlan, TokenArray, lay_out_rows, plan_rows, tree_masks


def random_sequences(rng: np.random.Generator, count: int, letters: int = 3, longest: int = 7) -> list[TokenArray]:
    """Different sequences over a small alphabet, so that they share beginnings, and some begin others."""
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        found[tuple(rng.integers(1, letters + 1, rng.integers(1, longest + 1)).tolist())] = None
    return [np.array(tokens, dtype=np.int32) for tokens in found]


def tree_size(sequences: list[TokenArray]) -> int:
    """Distinct beginnings."""
    return len({tuple(s[: n + 1].tolist()) for s in sequences for n in range(len(s))})


@pytest.mark.parametrize("seed", range(20))
def test_every_token_sees_the_beginning_of_its_sequence_and_nothing_else(seed: int):
    rng = np.random.default_rng(seed)
    sequences = random_sequences(rng, int(rng.integers(1, 9)))
    rows = plan_rows(sequences, max_row=int(rng.integers(3, 30)), even_length=float(rng.choice([5, 50, 1e9])))
    assert sorted(at for row in rows for at in row.members) == list(range(len(sequences)))
    laid = lay_out_rows(sequences, rows, pad_token_id=0)
    window = int(rng.integers(1, 6))
    masks = {None: tree_masks(laid)[:, 0], window: tree_masks(laid, window)[:, 0]}
    assert sorted(laid.sequence_N.tolist()) == list(range(len(sequences)))
    for row, column, member in zip(laid.row_N.tolist(), laid.column_N.tolist(), laid.sequence_N, strict=True):
        for limit, mask in masks.items():
            sequence = sequences[member]
            seen = torch.nonzero(mask[row, column]).squeeze(-1)
            first = 0 if limit is None else max(0, len(sequence) - limit)
            assert laid.input_ids[row, seen].tolist() == sequence[first:].tolist()
            assert laid.position_ids[row, seen].tolist() == list(range(first, len(sequence)))
        # And so does every token on the way, in its turn.
        path = torch.nonzero(masks[None][row, column]).squeeze(-1)
        for depth, at in enumerate(path):
            assert torch.nonzero(masks[None][row, at]).squeeze(-1).tolist() == path[: depth + 1].tolist()
    for row, plan in enumerate(rows):
        assert plan.length == tree_size([sequences[at] for at in plan.members])
        padding = torch.arange(plan.length, laid.input_ids.shape[1])
        for mask in masks.values():
            assert not mask[row, : plan.length, plan.length :].any()
            assert torch.equal(mask[row, padding][:, padding], torch.eye(len(padding), dtype=torch.bool))


@pytest.mark.parametrize("seed", range(12))
def test_no_other_division_of_the_sorted_sequences_costs_less(seed: int):
    rng = np.random.default_rng(100 + seed)
    sequences = random_sequences(rng, int(rng.integers(2, 8)), letters=2)
    max_row, even = int(rng.integers(7, 20)), float(rng.choice([3.0, 10.0, 40.0]))
    ordered = sorted(sequences, key=lambda tokens: tokens.tolist())

    def cost(lengths: list[int]) -> float:
        return sum(length + length**2 / even for length in lengths)

    best = np.inf
    for cuts in product([False, True], repeat=len(ordered) - 1):
        parts = [[ordered[0]]]
        for sequence, cut in zip(ordered[1:], cuts, strict=True):
            if cut:
                parts.append([])
            parts[-1].append(sequence)
        sizes = [tree_size(part) for part in parts]
        if all(size <= max_row or len(part) == 1 for size, part in zip(sizes, parts, strict=True)):
            best = min(best, cost(sizes))
    rows = plan_rows(sequences, max_row=max_row, even_length=even)
    assert cost([row.length for row in rows]) == pytest.approx(best)
    assert all(row.length <= max_row or not row.is_tree for row in rows)


def test_what_is_shared_is_laid_out_once():
    prompt = list(range(10, 60))
    sequences = [np.array([*prompt, *end], dtype=np.int32) for end in ([1, 2, 3], [1, 2, 4], [5])]
    (row,) = plan_rows(sequences, max_row=4096, even_length=1000.0)
    assert row == RowPlan(members=(0, 1, 2), shared=(0, 52, 50), length=50 + 3 + 1 + 1)
    assert row.is_tree


def test_sequences_that_share_little_get_rows_of_their_own_when_attention_is_dear():
    sequences = [np.array([7, *range(start, start + 80)], dtype=np.int32) for start in (100, 300, 500)]
    assert [row.length for row in plan_rows(sequences, max_row=4096, even_length=200.0)] == [81, 81, 81]
    assert [row.length for row in plan_rows(sequences, max_row=4096, even_length=1e9)] == [241]
    assert [row.length for row in plan_rows(sequences, max_row=200, even_length=1e9)] in ([161, 81], [81, 161])
    assert plan_rows([], max_row=8, even_length=1.0) == []


def test_many_sequences_of_one_prompt_are_divided_within_the_bound():
    sequences = [np.array([1, 2, 3, at], dtype=np.int32) for at in range(10, 310)]
    rows = plan_rows(sequences, max_row=4096, even_length=1e9)
    assert sorted(at for row in rows for at in row.members) == list(range(300))
    assert max(len(row.members) for row in rows) <= 128
