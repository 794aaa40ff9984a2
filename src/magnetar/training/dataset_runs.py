"""Training on a fixed dataset (demonstrations, preference pairs): what keeps such a run from being lost.

Self-play, whose data are made on the way, has `magnetar.training.resumable` instead.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from datasets import Dataset
from torch import nn
from transformers import PrinterCallback, ProgressCallback, Trainer

from magnetar.errors import CheckpointError
from magnetar.training import checkpoints
from magnetar.training.callbacks import StopSignals, TrainingInterrupted
from magnetar.training.dataset_run_files import DatasetRunConsole, DatasetRunFiles
from magnetar.training.sharding import agreed
from magnetar.training.starting_point import digest_of_start

__all__ = ["DatasetRun", "RunKind", "check_resume", "checkpoint_to_resume", "digest_of"]


@dataclass(frozen=True)
class RunKind:
    """A kind of run.

    Attributes:
        key: Under which a checkpoint's mark holds its settings.
        name: What messages call it.
        rows: What messages call the rows of its data.
        older: What settings were before they existed, in checkpoints that do not name them.
    """

    key: str
    name: str
    rows: str
    older: Mapping[str, Any] = field(default_factory=dict)


class DatasetRunSettings(Protocol):
    """What settings of such a run have, besides those of transformers."""

    overwrite_output_dir: bool
    disable_tqdm: bool | None

    @property
    def process_index(self) -> int:
        """Of this process."""
        ...

    @property
    def world_size(self) -> int:
        """Number of processes."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """The settings that a resumed run must share with its checkpoint."""
        ...


class DatasetRun(Trainer):
    """Checkpoints that are complete or not there, resumption of the same run only, and a stop on signals."""

    run_kind: ClassVar[RunKind]
    settings: Any  # `DatasetRunSettings`; subclasses say which
    labels: dict[str, str]
    signals: StopSignals
    data_digest: str
    start_digest: str

    def set_up_run(self, settings: DatasetRunSettings) -> None:
        """Attach callbacks; called at the end of a trainer's construction."""
        self.settings = settings
        # What a reader should see in place of a path or an object: "model", "dataset".
        self.labels = {}
        self.data_digest = digest_of(cast(Dataset, self.train_dataset))
        self.start_digest = agreed(digest_of_start(cast(nn.Module, self.model)), settings.world_size)
        # Ours print one line a log and keep the bar; transformers' print dictionaries.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.signals = StopSignals(self.accelerator)
        self.add_callback(self.signals)
        self.add_callback(DatasetRunFiles(self))
        if not settings.disable_tqdm and settings.process_index == 0:
            self.add_callback(DatasetRunConsole())

    def run_settings(self) -> dict[str, Any]:
        """What a reader needs to know of the run, as plain values; written to `magnetar_config.json`."""
        raise NotImplementedError

    def save_beside(self, folder: Path) -> None:
        """Write into a checkpoint what a kind of run adds to it; called on the process that saves."""

    def train(  # pyright: ignore[reportIncompatibleMethodOverride]  # the rest goes through as it is
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Train; see `transformers.Trainer.train`. A finished run that is resumed is loaded, and trains nothing.

        Args:
            resume_from_checkpoint: A checkpoint folder, or True for the newest complete one of ``output_dir``.
            *args: Passed on.
            **kwargs: Passed on.

        Returns:
            The result of `transformers.Trainer.train`.

        Raises:
            CheckpointError: The checkpoint is incomplete, damaged or of another run, or saving failed.
            ConfigError: The output folder holds another run.
            TrainingInterrupted: After SIGINT or SIGTERM, once a checkpoint is written.
        """
        run_dir = Path(cast(str, self.args.output_dir))
        if resume_from_checkpoint:
            found = resume_from_checkpoint
            folder = checkpoints.latest_checkpoint(run_dir) if found is True else Path(str(found))
            check_resume(self.run_kind, folder, self.settings, data=self.data_digest, start=self.start_digest)
            resume_from_checkpoint = str(folder)
        elif not self.settings.overwrite_output_dir:
            checkpoints.refuse_other_run(run_dir)
        elif self.args.should_save:
            checkpoints.remove_all(run_dir)
        with self.signals.installed():
            result = super().train(resume_from_checkpoint or None, *args, **kwargs)
        if self.signals.received is not None and self.state.global_step < self.state.max_steps:
            raise TrainingInterrupted(self.signals.received, run_dir / f"checkpoint-{self.state.global_step}")
        return result

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Nothing in a finished run that is resumed: transformers looks for the end only after a step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save everything, mark the checkpoint as complete, and only then remove older ones."""
        with checkpoints.whole_checkpoint(self.args, self.state) as folder:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.save_beside(folder)
                digests = {"data": self.data_digest, "start": self.start_digest}
                own = {self.run_kind.key: {**self.settings.fingerprint(), **digests}}
                checkpoints.write_mark(folder, {"step": self.state.global_step, **own})


def check_resume(
    kind: RunKind, folder: Path, settings: DatasetRunSettings, *, data: str | None = None, start: str | None = None
) -> None:
    """Check that a checkpoint is complete and of this run.

    Args:
        kind: Of the run.
        folder: The checkpoint.
        settings: Of the run that would go on.
        data: Digest of its rows; None before they are encoded.
        start: Digest of what it started from; None before that is loaded.

    Raises:
        CheckpointError: It is not.
    """
    path = checkpoints.state_file(folder)
    try:
        known = {**kind.older, **json.loads(path.read_text(encoding="utf-8"))[kind.key]}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged, or not of {kind.name} ({error!r}); resume from another checkpoint"
        ) from error
    for name, value in settings.fingerprint().items():
        if known.get(name) != value:
            raise CheckpointError(
                f"{folder} was written with {name}={known.get(name)!r}, this run has {name}={value!r}; resume with the "
                "same setting, or start a new run in another output_dir"
            )
    if data is not None and known.get("data") != data:
        raise CheckpointError(
            f"{folder} was written while training on other {kind.rows}; resume with the same dataset, split and "
            "tokenizer, or start a new run in another output_dir"
        )
    if start is not None and known.get("start") != start:
        raise CheckpointError(
            f"{folder} was written by a run on another model, or of another adapter; resume with the same model and "
            "adapter settings, or start a new run in another output_dir"
        )


def checkpoint_to_resume(kind: RunKind, asked: object, settings: DatasetRunSettings, folder: Path) -> str | None:
    """The checkpoint to resume from, found and checked before a model is loaded.

    Args:
        kind: Of the run.
        asked: A checkpoint folder, or "latest" or true for the newest complete one; None for none.
        settings: Of the run that would go on.
        folder: Of the run.

    Raises:
        CheckpointError: There is none, or it is not of this run.
    """
    if not asked:
        return None
    latest = str(asked).lower() in ("true", "latest")
    found = checkpoints.latest_checkpoint(folder) if latest else Path(str(asked))
    check_resume(kind, found, settings)
    return str(found)


def digest_of(dataset: Dataset) -> str:
    """Digest of encoded rows in their order: another dataset, tokenizer or limit has another one."""
    digest = hashlib.blake2b(digest_size=16)
    for column in sorted(dataset.column_names):
        digest.update(column.encode())
        for batch in dataset.select_columns([column]).with_format("arrow").iter(1000):
            digest.update(repr(cast(Any, batch)[column].to_pylist()).encode())
    return digest.hexdigest()
