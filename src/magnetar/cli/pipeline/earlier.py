"""What a step gave before its inputs changed: put aside, and found again when they are changed back."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import magnetar
from magnetar.cli.pipeline.work import Work
from magnetar.errors import CheckpointError
from magnetar.pipeline.manifest import MANIFEST_FILE, STARTED_FILE, inputs_digest, read_manifest, read_started
from magnetar.pipeline.plan import Step, StepState, inputs_of, state_of

__all__ = ["EARLIER", "earlier_place", "earlier_result", "put_aside"]

EARLIER = "earlier"


def put_aside(step: Step, work: Work) -> None:
    """Make room for a step that runs anew; what is there goes to the folder of earlier results.

    A run that was begun is kept for its checkpoints, and removed if it has none.
    """
    if not step.folder.exists():
        return
    if step.keeps:
        (step.folder / MANIFEST_FILE).unlink(missing_ok=True)
        return
    digest = _made_from(step.folder)
    if digest == "":
        _remove(step.folder, work)
        return
    place = _folder(step, work, "unreadable" if digest is None else digest)
    if digest is not None:
        _remove(place, work)
    place = _free(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    step.folder.rename(place)


def earlier_result(step: Step, states: Mapping[str, StepState], work: Work) -> StepState | None:
    """Put back what was made, or begun, from the same inputs before.

    Args:
        step: That would run anew.
        states: Of the steps before it.
        work: Of the pipeline.

    Returns:
        The step's state with it in its place; None if there is no such result.
    """
    place = earlier_place(step, states, work)
    if place is None:
        return None
    aside = _aside(place)
    if place != aside:
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
    put_aside(step, work)
    step.folder.parent.mkdir(parents=True, exist_ok=True)
    aside.rename(step.folder)
    return state_of(step, states, magnetar.__version__, work.contents.digests, thorough=True)


def earlier_place(step: Step, states: Mapping[str, StepState], work: Work) -> Path | None:
    """Where a result from the same inputs lies, finished or begun; None if there is none."""
    if step.keeps:
        return None
    place = _folder(step, work, inputs_digest(inputs_of(step, states, magnetar.__version__)))
    for found in (place, _aside(place)):  # the latter after a kill between the two renames of `earlier_result`
        if any((found / name).is_file() for name in (MANIFEST_FILE, STARTED_FILE)):
            return found
    return None


def _aside(place: Path) -> Path:
    return place if place.suffix == ".swapped" else place.with_name(f"{place.name}.swapped")


def _made_from(folder: Path) -> str | None:
    """Digest of the inputs that a folder was made from; "" if nothing in it is of use, None if nobody can tell."""
    try:
        manifest = read_manifest(folder)
    except CheckpointError:
        return None
    if manifest is not None:
        return manifest.inputs_digest
    if any(folder.glob("checkpoint-*")):
        started = read_started(folder)
        return None if started is None else inputs_digest(started[0])
    return ""


def _folder(step: Step, work: Work, mark: str) -> Path:
    return work.config.output_dir / EARLIER / f"{step.name.replace('/', '--')}-{mark[:12]}"


def _free(place: Path) -> Path:
    """The place, or one beside it if something is there."""
    number, free = 1, place
    while free.exists():
        number += 1
        free = place.with_name(f"{place.name}-{number}")
    return free


def _remove(folder: Path, work: Work) -> None:
    """Remove a folder; a kill on the way leaves no half of it in its place."""
    if not folder.exists():
        return
    rubbish = work.config.output_dir / EARLIER / ".removed"
    rubbish.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(rubbish, ignore_errors=True)
    folder.rename(rubbish)
    shutil.rmtree(rubbish, ignore_errors=True)
