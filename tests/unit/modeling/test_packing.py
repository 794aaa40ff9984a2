"""Layouts hold every token once and in order; micro batches keep to their budget."""

from collections.abc import Iterator
from itertools import chain

import pytest
import torch

from magnetar.modeling import packing
from magnetar.modeling.packing import block_masks, lay_out, split_micro_batches

PROMPTS = [[10, 11, 12], [20], [30, 31, 32, 33, 34, 35, 36, 37]]
RESPONSES = [[[1, 2, 3], [4]], [[5], [6, 7]], [[8, 9, 1, 2], [3, 4]]]


@pytest.mark.parametrize("name", ["packed", "padded"])
def test_every_response_token_is_predicted_by_the_token_before_it(name):
    layout = lay_out(PROMPTS, RESPONSES, name, pad_token_id=0)
    before = layout.input_ids[layout.row_N, layout.column_N].tolist()
    expected_before, expected_target = [], []
    for prompt, group in zip(PROMPTS, RESPONSES, strict=True):
        for response in group:
            expected_before += [prompt[-1], *response[:-1]]
            expected_target += response
    assert before == expected_before
    assert layout.target_N.tolist() == expected_target
    assert layout.mask_BGT.sum() == len(expected_target)
    assert [[int(n) for n in row] for row in layout.mask_BGT.sum(-1)] == [[len(r) for r in g] for g in RESPONSES]
    real = layout.group_RL >= 0
    # A predictor's position is its distance from the start of prompt + response.
    index_bgt = layout.mask_BGT.nonzero()
    prompt_lengths = torch.tensor([len(prompt) for prompt in PROMPTS])
    position_n = layout.position_ids[layout.row_N, layout.column_N]
    assert torch.equal(position_n, prompt_lengths[index_bgt[:, 0]] - 1 + index_bgt[:, 2])
    assert (layout.input_ids[~real] == 0).all()


def test_a_packed_prompt_is_stored_once_and_short_groups_share_a_row():
    layout = lay_out(PROMPTS, RESPONSES, "packed", pad_token_id=0)
    tokens = layout.input_ids[layout.group_RL >= 0].tolist()
    assert sorted(t for t in tokens if t >= 10) == sorted(chain.from_iterable(PROMPTS))
    # 12 tokens (8 + 3 + 1), 5 (3 + 2 + 0) and 2 (1 + 0 + 1): one row, without padding.
    assert layout.input_ids.shape == (1, 19)
    padded = lay_out(PROMPTS, RESPONSES, "padded", pad_token_id=0)
    assert padded.input_ids.shape == (6, 11)


@pytest.mark.parametrize("window", [None, 3])
def test_a_token_sees_its_prompt_and_its_own_past_alone(window):
    layout = lay_out(PROMPTS, RESPONSES, "packed", pad_token_id=0)
    visible = block_masks(layout, window)[:, 0]
    for r in range(layout.input_ids.shape[0]):
        for q in (layout.group_RL[r] >= 0).nonzero().flatten().tolist():
            group, segment, position = (int(t[r, q]) for t in (layout.group_RL, layout.segment_RL, layout.position_ids))
            full = [*PROMPTS[group], *(RESPONSES[group][segment - 1] if segment else [])][: position + 1]
            seen = layout.input_ids[r][visible[r, q]].tolist()
            assert sorted(seen) == sorted(full[-window:] if window else full)


def test_no_row_of_a_mask_is_empty():
    assert block_masks(lay_out(PROMPTS, RESPONSES, "packed", pad_token_id=0)).any(-1).all()


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("budget", [1, 30, 60, 10_000])
def test_micro_batches_hold_every_prompt_once_within_the_budget(layout, budget):
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> list[int]:
        return torch.randint(1, n, (2,), generator=generator).tolist()

    prompts = [[7] * draw(20)[0] for _ in range(12)]
    responses = [[[7] * n for n in draw(15)] for _ in prompts]
    batches = split_micro_batches(prompts, responses, budget, layout)
    assert sorted(chain.from_iterable(batches)) == list(range(12))
    for batch in batches:
        rows = lay_out([prompts[i] for i in batch], [responses[i] for i in batch], layout, pad_token_id=0)
        assert rows.input_ids.numel() <= budget or len(batch) == 1
    assert len(batches) == {1: 12, 10_000: 1}.get(budget, len(batches))
    if budget == 60:
        assert 1 < len(batches) < 12


LONG_PROMPTS = [[10, 11, 12], [20, 21, 22, 23]]
LONG_RESPONSES = [[[1] * 9, [2] * 8, [3] * 2, [4] * 9], [[5] * 7, [6], [7] * 3, [8] * 8]]


@pytest.mark.parametrize("dear_width", [2, 8, 400])
def test_stretches_of_one_group_never_see_each_other(monkeypatch, dear_width):
    monkeypatch.setattr(packing, "DEAR_WIDTH", dear_width)
    layout = lay_out(LONG_PROMPTS, LONG_RESPONSES, "packed", pad_token_id=0)
    stretches = int(layout.group_RL.max()) + 1
    assert stretches > 2 if dear_width < 400 else stretches == 2
    visible = block_masks(layout)[:, 0]
    seen_by_predictor = visible[layout.row_N, layout.column_N]
    index_bgt = layout.mask_BGT.nonzero().tolist()
    for n, (b, g, t) in enumerate(index_bgt):
        tokens = layout.input_ids[layout.row_N[n]][seen_by_predictor[n]].tolist()
        assert tokens == [*LONG_PROMPTS[b], *LONG_RESPONSES[b][g][:t]]
        assert int(layout.target_N[n]) == LONG_RESPONSES[b][g][t]


def every_partition(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    first, *rest = items
    for partition in every_partition(rest):
        yield [[first], *partition]
        for number, part in enumerate(partition):
            yield [*partition[:number], [first, *part], *partition[number + 1 :]]


def price(rows: list[list[int]], lengths: list[int]) -> float:
    width = max(sum(lengths[index] for index in row) for row in rows)
    return len(rows) * width * (1 + width / packing.DEAR_WIDTH)


@pytest.mark.parametrize("dear_width", [20, 100, 1000])
def test_rows_cost_little_more_than_the_best_of_all_partitions(monkeypatch, dear_width):
    monkeypatch.setattr(packing, "DEAR_WIDTH", dear_width)
    generator = torch.Generator().manual_seed(1)
    for _ in range(15):
        lengths = torch.randint(3, 60, (7,), generator=generator).tolist()
        best = min(price(rows, lengths) for rows in every_partition(list(range(7))))
        found = packing._fill_rows(lengths)
        assert sorted(chain.from_iterable(found)) == list(range(7))
        assert price(found, lengths) <= 1.1 * best


def test_a_group_over_the_budget_is_alone_and_others_are_not_held_up():
    prompts = [[7] * 5] * 6
    responses = [[[7] * 4, [7] * 4]] * 2 + [[[7] * 900, [7] * 800]] + [[[7] * 4, [7] * 4]] * 3
    assert split_micro_batches(prompts, responses, 60, "packed") == [[2], [0, 1, 3, 4, 5]]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="prompt 1 has no tokens"):
        lay_out([[1], []], [[[1]], [[1]]], "packed", pad_token_id=0)
    with pytest.raises(ValueError, match="response 1 of prompt 0 has no tokens"):
        lay_out([[1]], [[[1], []]], "packed", pad_token_id=0)
    with pytest.raises(ValueError, match=r"groups of sizes \[1, 2\]"):
        lay_out([[1], [1]], [[[1]], [[1], [1]]], "padded", pad_token_id=0)
    with pytest.raises(ValueError, match="1 prompts and 2 groups"):
        lay_out([[1]], [[[1]], [[1]]], "padded", pad_token_id=0)
    with pytest.raises(ValueError, match="max_tokens = 0"):
        split_micro_batches([[1]], [[[1]]], 0, "packed")
