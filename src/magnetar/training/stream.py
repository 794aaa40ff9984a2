"""The order in which prompts are played: rounds, passes, updates, inner epochs, all fixed before training starts.

Every row of the stream knows its position. Positions seed the sampling of responses, so that a run's responses do not
depend on how many processes it has, how its batches are split, or whether it was interrupted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from magnetar.data import split_rounds
from magnetar.errors import ConfigError

__all__ = ["PromptStream", "StreamPlan", "plan_stream"]


@dataclass(frozen=True)
class StreamPlan:
    """Which row of the dataset is played when.

    Attributes:
        rows: Row of the dataset at each position, shape (updates · prompts_per_update,).
        updates_per_round: Updates of each round, in order.
        prompts_per_update: Prompts of one update over all processes.
        inner_epochs: Optimiser steps on the batch of one update.
    """

    rows: np.ndarray
    updates_per_round: tuple[int, ...]
    prompts_per_update: int
    inner_epochs: int

    @property
    def updates(self) -> int:
        """Updates of the whole run."""
        return sum(self.updates_per_round)

    @property
    def optimizer_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.updates * self.inner_epochs

    def round_of(self, update: int) -> int:
        """Round (from 0) that update number ``update`` (from 1) belongs to."""
        return int(np.searchsorted(np.cumsum(self.updates_per_round), update, side="left"))

    def round_ends_after(self, update: int) -> bool:
        """Whether update number ``update`` (from 1) is the last of its round."""
        return update in np.cumsum(self.updates_per_round)


def plan_stream(
    num_rows: int,
    *,
    num_rounds: int,
    prompts_per_update: int,
    num_train_epochs: float,
    max_updates: int | None,
    inner_epochs: int,
    seed: int,
) -> StreamPlan:
    """Split the prompts evenly over rounds and shuffle every pass over a round's share.

    Args:
        num_rows: Prompts in the dataset.
        num_rounds: Self-play rounds.
        prompts_per_update: Prompts of one update over all processes.
        num_train_epochs: Passes of each round over its share; a last, incomplete update is left out.
        max_updates: Updates of the whole run, spread evenly over the rounds; None to follow ``num_train_epochs``.
        inner_epochs: Optimiser steps on each update's batch.
        seed: Of the shuffling.

    Returns:
        The plan.

    Raises:
        ConfigError: A round too short for one update, or fewer updates than rounds.
    """
    shares = split_rounds(num_rows, num_rounds, seed)
    if max_updates is None:
        counts = [int(len(share) * num_train_epochs) // prompts_per_update for share in shares]
        if min(counts) < 1:
            raise ConfigError(
                f"a round has {min(len(s) for s in shares)} prompts × {num_train_epochs:g} epochs, fewer than the "
                f"{prompts_per_update} prompts of one update; lower per_device_train_batch_size or num_rounds, or "
                "raise num_train_epochs"
            )
    else:
        if max_updates < num_rounds:
            raise ConfigError(
                f"{max_updates} updates cannot fill {num_rounds} rounds; raise max_steps or lower num_rounds"
            )
        counts = [max_updates // num_rounds + (r < max_updates % num_rounds) for r in range(num_rounds)]
    rng = np.random.default_rng([seed, 1])
    rows = []
    for share, count in zip(shares, counts, strict=True):
        needed = count * prompts_per_update
        passes = -(-needed // len(share))
        rows.append(np.concatenate([rng.permutation(share) for _ in range(passes)])[:needed])
    return StreamPlan(np.concatenate(rows), tuple(counts), prompts_per_update, inner_epochs)


class PromptStream(Dataset[dict[str, Any]]):
    """The plan as a map-style dataset, one row per prompt and optimiser step, to be read in order.

    Args:
        plan: The plan.
        prompts: Prompts of the dataset, one per row.
        prompt_ids: Their token ids.
    """

    def __init__(self, plan: StreamPlan, prompts: Sequence[Any], prompt_ids: Sequence[list[int]]) -> None:
        self.plan = plan
        self._prompts = prompts
        self._prompt_ids = prompt_ids

    def __len__(self) -> int:
        return len(self.plan.rows) * self.plan.inner_epochs

    def __getitem__(self, index: int) -> dict[str, Any]:
        size = self.plan.prompts_per_update
        step, offset = divmod(index, size)
        position = (step // self.plan.inner_epochs) * size + offset
        row = int(self.plan.rows[position])
        return {"position": position, "prompt": self._prompts[row], "prompt_ids": self._prompt_ids[row]}
