"""Weighted means that add up over micro-batches and processes."""

import math
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from magnetar.training.experience import Experience

__all__ = ["MeanMetrics"]


class MeanMetrics:
    """Collects totals and weights; `reduce` turns them into means over all processes and empties the collection."""

    def __init__(self) -> None:
        self._totals: dict[str, list[float]] = {}

    def add(self, name: str, total: float, weight: float) -> None:
        """Add a total over ``weight`` items; an item that is NaN should be left out by the caller."""
        entry = self._totals.setdefault(name, [0.0, 0.0])
        entry[0] += total
        entry[1] += weight

    def reduce(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over all processes, which need not have added the same names.

        Args:
            accelerator: Of the trainer.

        Returns:
            Name to mean; a name whose weights sum to zero is left out.
        """
        names = set(self._totals)
        if accelerator.num_processes > 1:
            names = set().union(*gather_object([names]))
        if not names:
            return {}
        names = sorted(names)
        sums = torch.tensor([self._totals.get(name, [0.0, 0.0]) for name in names], dtype=torch.float64)
        sums = sums.to(accelerator.device)
        if accelerator.num_processes > 1:
            sums = cast(torch.Tensor, accelerator.reduce(sums, reduction="sum"))
        self._totals.clear()
        return {name: float(t / w) for name, (t, w) in zip(names, sums.tolist(), strict=True) if w > 0}

    def add_experience(self, experience: Experience) -> None:
        """Add what an update's fresh responses are like, and the time that they took."""
        weight_BG = experience.response_weight_BG
        payoff_BG = experience.payoff_BG
        mean_B = (weight_BG * payoff_BG).sum(-1)
        spread_B = (weight_BG * (payoff_BG - mean_B[:, None]) ** 2).sum(-1).sqrt()
        prompts = float(weight_BG.sum())  # those of which the judge answered something
        values = {
            "payoff_mean": mean_B,
            "payoff_std": spread_B,
            "response_tokens": (weight_BG * _lengths_BG(experience)).sum(-1),
            "truncated": (weight_BG * experience.truncated_BG).sum(-1),
        }
        for name, value_B in values.items():
            self.add(name, float(value_B.sum()), prompts)
        if not math.isnan(experience.cyclic_triples):
            self.add("cyclic_triples", experience.cyclic_triples * prompts, prompts)
        self.add_stages(experience)

    def add_stages(self, experience: Experience) -> None:
        """Add the time that an experience took."""
        for stage, seconds in experience.seconds.items():
            self.add(f"seconds_{stage}", seconds, 1.0)
        # A mean whose weights are seconds: response tokens over the time that passed.
        self.add("tokens_per_second", float(_lengths_BG(experience).sum()), experience.trainer_seconds)

    def add_counters(self, counters: dict[str, float]) -> None:
        """Add what the judge counted in an optimiser step."""
        for name, value in counters.items():
            if math.isfinite(value):
                self.add(f"judge/{name}", value, 1.0)


def _lengths_BG(experience: Experience) -> torch.Tensor:
    return torch.tensor([[len(r) for r in group] for group in experience.response_ids], dtype=torch.float64)
