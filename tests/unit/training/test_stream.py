"""The order of prompts: even over rounds, every prompt once a pass, the same for every number of processes."""

from typing import Any

import numpy as np
import pytest

from magnetar.errors import ConfigError, DataError
from magnetar.training.stream import PromptStream, StreamPlan, plan_stream


def plan(num_rows: int = 24, **settings: Any) -> StreamPlan:
    defaults: dict[str, Any] = {
        "num_rounds": 1,
        "prompts_per_update": 4,
        "num_train_epochs": 1.0,
        "max_updates": None,
        "inner_epochs": 1,
        "seed": 0,
    }
    return plan_stream(num_rows, **(defaults | settings))


def test_each_round_plays_its_own_share_once() -> None:
    made = plan(num_rounds=3)
    assert made.updates_per_round == (2, 2, 2)
    shares = [set(part.tolist()) for part in np.split(made.rows, 3)]
    assert [len(share) for share in shares] == [8, 8, 8]
    assert set().union(*shares) == set(range(24))


def test_every_pass_plays_every_prompt_once_in_another_order() -> None:
    first, second = np.split(plan(num_train_epochs=2.0).rows, 2)
    assert sorted(first) == sorted(second) == list(range(24))
    assert first.tolist() != second.tolist()


def test_updates_are_spread_evenly_over_rounds() -> None:
    made = plan(num_rounds=3, max_updates=8)
    assert made.updates_per_round == (3, 3, 2)
    assert [made.round_of(update) for update in range(1, 9)] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert [update for update in range(1, 9) if made.round_ends_after(update)] == [3, 6, 8]


def test_the_order_depends_on_the_seed_and_not_on_the_batch() -> None:
    assert plan().rows.tolist() == plan(prompts_per_update=8).rows.tolist()
    assert plan().rows.tolist() != plan(seed=1).rows.tolist()


def test_inner_epochs_repeat_each_batch_at_the_same_positions() -> None:
    made = plan(inner_epochs=2, max_updates=3)
    stream = PromptStream(made, [f"prompt {i}" for i in range(24)], [[i] for i in range(24)])
    assert len(stream) == 3 * 2 * 4 and made.optimizer_steps == 6
    rows = [stream[i] for i in range(len(stream))]
    positions = [[row["position"] for row in rows[k : k + 4]] for k in range(0, len(rows), 4)]
    assert positions == [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 2 + [[8, 9, 10, 11]] * 2
    assert all(row["prompt"] == f"prompt {made.rows[row['position']]}" for row in rows)
    assert all(row["prompt_ids"] == [made.rows[row["position"]]] for row in rows)


def test_rounds_that_cannot_be_filled_are_refused() -> None:
    with pytest.raises(ConfigError, match="8 prompts × 1 epochs, fewer than the 9"):
        plan(num_rounds=3, prompts_per_update=9)
    with pytest.raises(ConfigError, match="2 updates cannot fill 3 rounds"):
        plan(num_rounds=3, max_updates=2)
    with pytest.raises(DataError, match="num_rounds=25"):
        plan(num_rounds=25)
