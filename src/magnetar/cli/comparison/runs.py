"""Training the runs of a comparison: each once, each resumable, several commands at a time."""

import ctypes
import gc
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from filelock import FileLock, Timeout

from magnetar.cli.comparison.config import ComparisonConfig
from magnetar.cli.comparison.plan import PlannedRun, differences
from magnetar.errors import CheckpointError, ConfigError, MagnetarError
from magnetar.training.callbacks import TrainingInterrupted

__all__ = ["RunRecord", "check_settings", "free_memory", "read_record", "train_runs", "unfinished"]

RECORD_FILE = "comparison_run.json"
Status = Literal["absent", "started", "failed", "finished"]


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder says of its state.

    Attributes:
        status: "absent", "started" (and under way or interrupted), "failed" or "finished".
        settings: Those that it was started with.
        data: Digest of its training prompts' file.
        error: Why it failed.
    """

    status: Status = "absent"
    settings: dict[str, Any] | None = None
    data: str | None = None
    error: str | None = None


def read_record(folder: Path) -> RunRecord:
    """State of a run.

    Raises:
        CheckpointError: Its record is damaged.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        return RunRecord()
    try:
        return RunRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}), so nobody knows what the run was; remove its folder"
        ) from error


def check_settings(run: PlannedRun) -> None:
    """Refuse to take a run of other settings for this one; a failed run may be tried with others.

    Raises:
        ConfigError: The folder holds a run of other settings or data; names what differs.
    """
    record = read_record(run.folder)
    if record.status in ("absent", "failed"):
        return
    differ = differences(record.settings or {}, run.settings)
    if record.data != run.data:
        differ.append("the content of the dataset's file")
    if differ:
        raise ConfigError(
            f"{run.name} is {record.status} with other settings ({'; '.join(differ)}); restore them, give the method "
            f"another label, or remove {run.folder} to train it again"
        )


def unfinished(runs: Sequence[PlannedRun]) -> list[str]:
    """One sentence for each run that is not finished."""
    words = {"absent": "has not been started", "started": "is not finished"}
    told = []
    for run in runs:
        record = read_record(run.folder)
        if record.status != "finished":
            told.append(f"{run.name}: " + (words.get(record.status) or f"failed: {record.error}"))
    return told


def train_runs(runs: Sequence[PlannedRun], config: ComparisonConfig) -> None:
    """Train what is not finished; a run that fails, or that another command is training, does not stop the others.

    Args:
        runs: Checked by `plan_runs` and `check_settings`.
        config: Of the comparison.

    Raises:
        TrainingInterrupted: On a signal, once the run under way is saved.
    """
    for number, run in enumerate(runs, start=1):
        where = f"[{number}/{len(runs)}] {run.name}"
        lock = FileLock(run.folder.parent / f"{run.folder.name}.lock")
        run.folder.mkdir(parents=True, exist_ok=True)
        try:
            with lock.acquire(timeout=0):
                _train_one(run, config, where)
        except Timeout:
            print(f"{where}: another command is training it; left to that one", file=sys.stderr, flush=True)


def _train_one(run: PlannedRun, config: ComparisonConfig, where: str) -> None:
    record = read_record(run.folder)
    if record.status == "finished":
        print(f"{where}: finished before", file=sys.stderr, flush=True)
        return
    checkpoint = _checkpoint(run, record)
    print(
        f"{where}: {'training' if checkpoint is None else f'going on from {checkpoint}'}", file=sys.stderr, flush=True
    )
    _write(run, "started")
    try:
        _train(run, config, checkpoint)
    except TrainingInterrupted as stop:
        raise _interrupted(stop, run) from stop
    except (MagnetarError, torch.OutOfMemoryError) as error:
        _write(run, "failed", str(error))
        print(f"{where} failed: {error}", file=sys.stderr, flush=True)
        return
    finally:
        free_memory()
    _write(run, "finished")
    if not config.keep_checkpoints:
        for folder in run.folder.glob("checkpoint-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _checkpoint(run: PlannedRun, record: RunRecord) -> Path | None:
    """The newest complete checkpoint of the same run."""
    from magnetar.training.checkpoints import complete_checkpoints

    same = record.data == run.data and not differences(record.settings or {}, run.settings)
    found = complete_checkpoints(run.folder) if same and record.status != "absent" else []
    return found[-1] if found else None


def _train(run: PlannedRun, config: ComparisonConfig, checkpoint: Path | None) -> None:
    from magnetar.cli.train import run as train
    from magnetar.training.snapshots import PolicySnapshots

    options, args, model_config = run.parsed()
    if checkpoint is not None:
        args.resume_from_checkpoint = str(checkpoint)
    else:
        args.overwrite_output_dir = True  # what is there was cut short before its first checkpoint

    def keep_points(trainer: Any) -> None:
        trainer.add_callback(PolicySnapshots(trainer, config.budget, config.evaluation.curve_points))

    train(options, args, model_config, prepare=keep_points)


def _interrupted(stop: TrainingInterrupted, run: PlannedRun) -> TrainingInterrupted:
    """The same stop, with how to go on with a comparison."""
    told = TrainingInterrupted(stop.signal_number, stop.checkpoint)
    told.args = (f"{run.name} was stopped, and is saved in {stop.checkpoint}; repeat the command to go on",)
    return told


def _write(run: PlannedRun, status: Status, error: str | None = None) -> None:
    record = {"status": status, "settings": dict(run.settings), "data": run.data, "error": error}
    unfinished = run.folder / f"{RECORD_FILE}.part"
    unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(run.folder / RECORD_FILE)


def free_memory() -> None:
    """Give back what a run has left behind, so that the next one starts with as much as the first."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        cast(Any, torch.cuda).empty_cache()
    with suppress(OSError, AttributeError, TypeError):  # glibc only
        # The C library keeps freed memory in its heap, and the holes of one run do not fit the next one's tensors.
        ctypes.CDLL(None).malloc_trim(0)
