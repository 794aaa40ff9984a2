"""How a trainer keeps its ledger: counts of every process, booked after each optimiser step."""

import time
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from magnetar.training.ledger import Ledger

__all__ = ["Spending", "end_training"]


class Spending:
    """The ledger of a running training.

    What a step costs is added when it is spent and booked when the step is over, so that a checkpoint's ledger is that
    of its optimiser step: what a failed or interrupted step had spent is spent again, and counted once.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.total = Ledger()
        self._accelerator = accelerator
        self._open = Ledger()
        self._since = time.monotonic()

    def start(self) -> None:
        """Let the clock run from now."""
        self._open = Ledger()
        self._since = time.monotonic()

    def add(self, spent: Ledger) -> None:
        """Note what this process spent."""
        self._open += spent

    def book(self, updates: int) -> None:
        """Add up what all processes spent since the last call; every process calls it.

        Args:
            updates: Finished updates of the run.
        """
        counts = torch.tensor(self._open.counts(), dtype=torch.float64, device=self._accelerator.device)
        if self._accelerator.num_processes > 1:
            counts = cast(Tensor, self._accelerator.reduce(counts, reduction="sum"))
        now = time.monotonic()
        self.total = (self.total + Ledger.from_counts(counts.tolist())).after(updates, now - self._since)
        self._open, self._since = Ledger(), now


def end_training(args: TrainingArguments, state: TrainerState, control: TrainerControl) -> Any:
    """Ask for what the last step of a training brings: a log line, a checkpoint and an evaluation if any are made."""
    control.should_training_stop = True
    control.should_log = True
    if args.save_strategy == SaveStrategy.STEPS:
        control.should_save = True
    if args.eval_strategy == IntervalStrategy.STEPS and args.eval_delay <= state.global_step:
        control.should_evaluate = True
    return control
