"""Running the steps of a pipeline: one at a time, each with a manifest at its end, what failed named."""

import shutil
import sys
import time
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import magnetar
from magnetar.cli.comparison.runs import free_memory
from magnetar.cli.pipeline.earlier import EARLIER, earlier_result, put_aside
from magnetar.cli.pipeline.made_data import check_data
from magnetar.cli.pipeline.provenance import git_state, hardware
from magnetar.cli.pipeline.stages import run_step
from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError, MagnetarError
from magnetar.evaluation import package_versions
from magnetar.pipeline.files import write_json
from magnetar.pipeline.manifest import (
    FAILURE_FILE,
    STARTED_FILE,
    Manifest,
    inputs_digest,
    outputs_of,
    product_digest,
    read_started,
    write_manifest,
    write_started,
)
from magnetar.pipeline.plan import Step, StepState, inputs_of, state_of

__all__ = ["only_pipeline", "run_steps"]

OVERVIEW_FILE = "pipeline.json"
LOCK_FILE = ".pipeline.lock"
UNDER_WAY = "under way"
TRAINS = ("sft", "preference", "train")


@contextmanager
def only_pipeline(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no other pipeline works in it.

    Raises:
        ConfigError: Another one does, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        held = lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"another pipeline is at work in {folder}; wait for it, or choose another output_dir"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot write to output_dir {str(folder)!r} ({error}); choose another place") from error
    with held:
        yield


def run_steps(
    steps: Sequence[Step], work: Work, skipped: Collection[str], command: Sequence[str], *, thorough: bool = False
) -> bool:
    """Run what has to run, in order.

    A step that fails is named, and what does not depend on it goes on.

    Args:
        steps: All steps, each after those that it uses.
        work: Of the pipeline.
        skipped: Names of those that are not to run.
        command: Arguments of the command, for the manifests.
        thorough: Read all outputs again to see whether they were changed.

    Returns:
        Whether all that was to run is finished.

    Raises:
        ConfigError: What the data stage made is not what a later one needs.
        KeyboardInterrupt: On a signal, once the step under way is saved.
    """
    states: dict[str, StepState] = {}
    failed: list[str] = []
    checked = False
    for number, step in enumerate(steps, start=1):
        skip = step.name in skipped
        state = state_of(step, states, magnetar.__version__, work.contents.digests, skip=skip, thorough=thorough)
        where = f"[{number}/{len(steps)}] {step.name}"
        if state.status == "run":
            state = _with_earlier_result(step, states, work, state)
        states[step.name] = state
        work.finished = _finished(work, states)
        if state.status in ("finished", "skipped", "blocked"):
            _say(f"{where}: {_told(state)}")
            if state.status == "blocked":
                failed.append(f"{step.name}: {'; '.join(state.reasons)}")
            continue
        if step.stage != "data" and not checked:
            check_data([one for one in steps if one.name not in skipped], work)
            checked = True
        _say(f"{where}: {'goes on' if state.status == 'resume' else 'runs'} ({'; '.join(state.reasons)})")
        _keep_record(steps, states, work, now=step.name)
        try:
            states[step.name] = _run_one(step, states, work, command, resume=state.status == "resume")
        except Exception as error:  # whatever it is: what does not depend on this step goes on, also at night
            states[step.name] = StepState("failed", (_failure(step, error),), None)
            failed.append(f"{step.name}: {states[step.name].reasons[0]}")
            _say(f"{where} failed: {states[step.name].reasons[0]}")
        except KeyboardInterrupt as stop:
            _keep_record(steps, states, work)
            raise _explained(stop, step) from stop
        else:
            done = states[step.name].manifest
            _say(f"{where}: finished, {_hours(0.0 if done is None else done.hours)}")
        if step.stage in TRAINS:  # evaluations give back what they load
            free_memory()
        _keep_record(steps, states, work)
    _keep_record(steps, states, work)
    for line in failed:
        _say(f"missing: {line}")
    return not failed


def _finished(work: Work, states: Mapping[str, StepState]) -> set[str]:
    """References to products that are there."""
    return {
        text for text, product in work.products.items() if (one := states.get(product.step)) is not None and one.usable
    }


def _keep_record(steps: Sequence[Step], states: Mapping[str, StepState], work: Work, now: str | None = None) -> None:
    """``pipeline.json``: all steps in their order, for pages and for people; and the digests that were computed."""
    entries = []
    for step in steps:
        state = states.get(step.name)
        done = None if state is None else state.manifest
        status = "waiting" if state is None else state.status
        entries.append(
            {
                "name": step.name,
                "stage": step.stage,
                "folder": step.name,
                "status": UNDER_WAY if step.name == now else status,
                "reasons": [] if state is None else list(state.reasons),
                "hours": None if done is None else done.hours,
                "results": {} if done is None else dict(done.results),
            }
        )
    config = {"model": work.config.model, "settings": dict(work.config.settings), **work.config.stages}
    path = work.config.output_dir / OVERVIEW_FILE
    try:
        write_json(path, {"format": 1, "steps": entries, "config": config})
        work.contents.digests.keep()
    except OSError as error:  # a full disk: steps say so themselves, and nothing depends on this file
        _say(f"note: {path} was not brought up to date ({error})")


def _failure(step: Step, error: Exception) -> str:
    """What went wrong, in a line; the rest goes into a file of the step's folder."""
    told = str(error) if isinstance(error, MagnetarError) else f"{type(error).__name__}: {error}"
    told = " ".join(told.split()) or type(error).__name__
    if not (step.folder / STARTED_FILE).is_file():
        return told
    path = step.folder / FAILURE_FILE
    try:
        path.write_text(f"{_now()}\n{''.join(traceback.format_exception(error))}", encoding="utf-8")
    except OSError:
        traceback.print_exception(error)
        return told
    return f"{told} (where it happened: {path})"


def _run_one(
    step: Step, states: dict[str, StepState], work: Work, command: Sequence[str], *, resume: bool
) -> StepState:
    inputs = inputs_of(step, states, magnetar.__version__)
    before = read_started(step.folder) if resume else None
    spent = 0.0 if before is None else before[1]
    if not resume:
        put_aside(step, work)
    write_started(step.folder, inputs, spent, since=time.time())
    started, clock = _now(), time.monotonic()
    try:
        results = run_step(step, work, resume)
    except BaseException:
        with suppress(OSError):  # a full disk; what went wrong matters more
            write_started(step.folder, inputs, spent + (time.monotonic() - clock) / 3600)
        raise
    (step.folder / FAILURE_FILE).unlink(missing_ok=True)
    if not work.config.keep_checkpoints:
        for folder in step.folder.glob("checkpoint-*"):
            shutil.rmtree(folder, ignore_errors=True)
    outputs = outputs_of(step.folder, work.contents.digests)
    manifest = Manifest(
        step=step.name,
        inputs=inputs,
        outputs=outputs,
        inputs_digest=inputs_digest(inputs),
        outputs_digest=product_digest(outputs),
        seeds=dict(step.seeds),
        results=results,
        versions=package_versions(),
        git=git_state(),
        hardware=hardware(),
        started=started,
        finished=_now(),
        hours=spent + (time.monotonic() - clock) / 3600,
        command=("magnetar", "pipeline", *command),
    )
    write_manifest(step.folder, manifest)
    return StepState("finished", (), manifest)


def _with_earlier_result(step: Step, states: Mapping[str, StepState], work: Work, state: StepState) -> StepState:
    """The step's state with what was made from the same inputs before, if there is such a result."""
    found = earlier_result(step, states, work)
    if found is None:
        return state
    if found.status not in ("finished", "resume"):
        return StepState("run", (*state.reasons, *found.reasons), None)
    word = "made" if found.status == "finished" else "begun"
    _say(f"{step.name}: {word} before from the same inputs; put back from {work.config.output_dir / EARLIER}")
    return found


def _explained(stop: KeyboardInterrupt, step: Step) -> KeyboardInterrupt:
    """The same stop, with how to go on with a pipeline."""
    told = KeyboardInterrupt(f"stopped in {step.name}; what is finished is kept: repeat the command to go on")
    told.signal_number = getattr(stop, "signal_number", 2)  # type: ignore[attr-defined]
    return told


def _told(state: StepState) -> str:
    if state.status == "finished":
        return "finished before"
    if state.status == "skipped" and state.manifest is not None and state.reasons:
        return f"skipped, though {'; '.join(state.reasons)}"
    return f"{state.status}{': ' + '; '.join(state.reasons) if state.reasons else ''}"


def _hours(hours: float) -> str:
    minutes = hours * 60
    return f"{minutes * 60:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _say(text: Any) -> None:
    print(text, file=sys.stderr, flush=True)
