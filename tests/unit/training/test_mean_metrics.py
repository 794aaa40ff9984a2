"""Means are weighted, and emptied once read."""

from types import SimpleNamespace
from typing import Any

import torch

from magnetar.training.metrics import MeanMetrics

ALONE: Any = SimpleNamespace(num_processes=1, device=torch.device("cpu"))


def test_means_are_weighted_and_read_once() -> None:
    metrics = MeanMetrics()
    assert metrics.reduce(ALONE) == {}
    metrics.add("kl", 6.0, 3.0)
    metrics.add("kl", 2.0, 1.0)
    metrics.add("never measured", 0.0, 0.0)
    assert metrics.reduce(ALONE) == {"kl": 2.0}
    assert metrics.reduce(ALONE) == {}
