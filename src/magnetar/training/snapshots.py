"""Policies kept along the way, at evenly spaced points of a budget."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers import TrainerCallback

from magnetar.training.ledger import Budget, Ledger, read_ledger, write_ledger

if TYPE_CHECKING:
    from magnetar.training.trainer import NashTrainer

__all__ = ["ROUND_FOLDER", "SNAPSHOT_FOLDER", "PolicySnapshots", "RoundSnapshots", "snapshots"]

SNAPSHOT_FOLDER = "curve"
ROUND_FOLDER = "rounds"


class PolicySnapshots(TrainerCallback):
    """Saves the policy when a run has spent k/n of its budget, for k = 1 … n − 1; the n-th is the run's result.

    Each goes into ``curve/update-N`` of the run's folder, with the ledger of that moment. A point that is passed within
    one update together with the next is left out.
    """

    def __init__(self, trainer: "NashTrainer", budget: Budget, points: int) -> None:
        """Remember what to look at.

        Args:
            trainer: Whose policy is saved.
            budget: Whose shares are the points.
            points: n, at least 1.
        """
        self._trainer = trainer
        self._budget = budget
        self._points = points
        self._passed: int | None = None

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """A resumed run has passed the points before its checkpoint; later ones were made by a run cut short."""
        self._passed = self._reached()
        folder = self._folder()
        for path in [] if not folder.is_dir() else folder.iterdir():
            if not path.name.removeprefix("update-").isdigit() or int(path.name[7:]) > self._trainer.ledger.updates:
                shutil.rmtree(path)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Save when a point has been passed with a whole update."""
        trainer = self._trainer
        if trainer.inner_epoch or trainer.budget_reached or self._reached() == self._passed:
            return
        self._passed = self._reached()
        if self._passed >= self._points:
            return
        folder = self._folder() / f"update-{trainer.ledger.updates}"
        _save(trainer, folder, f"point {self._passed} of {self._points} of the curve")

    def _reached(self) -> int:
        return self._budget.spent(self._trainer.ledger) * self._points // self._budget.amount

    def _folder(self) -> Path:
        return Path(cast(str, self._trainer.args.output_dir)) / SNAPSHOT_FOLDER


class RoundSnapshots(TrainerCallback):
    """Saves the policy at the end of each round but the last, which ends with the run's result.

    Each goes into ``rounds/round-N`` of the run's folder (N from 1), with the ledger of that moment. Where the magnet
    moves with the rounds, these policies are the magnets of the rounds after.
    """

    def __init__(self, trainer: "NashTrainer") -> None:
        """Remember what to look at.

        Args:
            trainer: Whose policy is saved.
        """
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Rounds that end after the checkpoint of a resumed run were made by a run cut short."""
        done = self._trainer.ledger.updates
        for path in self._folder().glob("round-*"):
            number = path.name.removeprefix("round-")
            ends = sum(self._trainer.plan.updates_per_round[: int(number)]) if number.isdigit() else None
            if ends is None or ends > done:
                shutil.rmtree(path)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Save when a round is over."""
        trainer = self._trainer
        done = trainer.ledger.updates
        if trainer.inner_epoch or not trainer.plan.round_ends_after(done):
            return
        number = trainer.plan.round_of(done) + 1
        if number < len(trainer.plan.updates_per_round):
            _save(trainer, self._folder() / f"round-{number}", f"end of round {number}")

    def _folder(self) -> Path:
        return Path(cast(str, self._trainer.args.output_dir)) / ROUND_FOLDER


def _save(trainer: "NashTrainer", folder: Path, reason: str) -> None:
    """Write the policy with what has been spent; the folder is whole or not there."""
    unfinished = folder.with_name(f"{folder.name}.part")
    trainer.save_model(str(unfinished), _internal_call=True)
    if trainer.args.should_save:
        write_ledger(unfinished, trainer.ledger, finished=False, reason=reason)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)


def snapshots(run_dir: Path) -> list[tuple[Path, Ledger]]:
    """Policies kept along the way of a run, in order, each with what had been spent.

    Raises:
        CheckpointError: A ledger is missing or damaged.
    """
    folder = run_dir / SNAPSHOT_FOLDER
    found = [p for p in folder.iterdir() if p.name.removeprefix("update-").isdigit()] if folder.is_dir() else []
    return [(p, read_ledger(p)) for p in sorted(found, key=lambda p: int(p.name.removeprefix("update-")))]
