"""Policies kept along the way, at evenly spaced points of a budget."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers import TrainerCallback

from magnetar.training.ledger import Budget, Ledger, read_ledger, write_ledger

if TYPE_CHECKING:
    from magnetar.training.trainer import NashTrainer

__all__ = ["SNAPSHOT_FOLDER", "PolicySnapshots", "snapshots"]

SNAPSHOT_FOLDER = "curve"


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
        unfinished = folder.with_name(f"{folder.name}.part")
        trainer.save_model(str(unfinished), _internal_call=True)
        if trainer.args.should_save:
            reason = f"point {self._passed} of {self._points} of the curve"
            write_ledger(unfinished, trainer.ledger, finished=False, reason=reason)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)

    def _reached(self) -> int:
        return self._budget.spent(self._trainer.ledger) * self._points // self._budget.amount

    def _folder(self) -> Path:
        return Path(cast(str, self._trainer.args.output_dir)) / SNAPSHOT_FOLDER


def snapshots(run_dir: Path) -> list[tuple[Path, Ledger]]:
    """Policies kept along the way of a run, in order, each with what had been spent.

    Raises:
        CheckpointError: A ledger is missing or damaged.
    """
    folder = run_dir / SNAPSHOT_FOLDER
    found = [p for p in folder.iterdir() if p.name.removeprefix("update-").isdigit()] if folder.is_dir() else []
    return [(p, read_ledger(p)) for p in sorted(found, key=lambda p: int(p.name.removeprefix("update-")))]
