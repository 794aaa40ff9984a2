"""Weighted means that add up over micro-batches and processes."""

from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

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
