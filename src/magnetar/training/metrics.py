"""Weighted means that add up over micro-batches and processes."""

import torch
from accelerate import Accelerator

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
        """Means over all processes; every process must have added the same names.

        Args:
            accelerator: Of the trainer.

        Returns:
            Name to mean; a name whose weights sum to zero is left out.
        """
        names = sorted(self._totals)
        if not names:
            return {}
        sums = torch.tensor([self._totals[name] for name in names], dtype=torch.float64, device=accelerator.device)
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums, reduction="sum")
        self._totals.clear()
        return {name: float(t / w) for name, (t, w) in zip(names, sums.tolist(), strict=True) if w > 0}
