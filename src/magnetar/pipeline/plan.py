"""Which steps have to run, and why: finished ones whose inputs are as they were do not."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from magnetar.errors import CheckpointError, ConfigError
from magnetar.pipeline.digests import FileDigests
from magnetar.pipeline.manifest import (
    STARTED_FILE,
    Manifest,
    damage,
    product_digest,
    read_manifest,
    read_started,
)
from magnetar.pipeline.references import Reference

__all__ = ["Product", "Step", "StepState", "differences", "inputs_of", "plan_states", "state_of"]

Status = Literal["finished", "run", "resume", "perhaps", "skipped", "blocked", "failed"]
MISSING = ("skipped", "blocked", "failed")
STUCK = {"skipped": "is skipped and not finished", "blocked": "is blocked", "failed": "failed"}
PENDING = "not made yet"


@dataclass(frozen=True)
class Product:
    """What a reference stands for.

    Attributes:
        step: Name of the step that makes it.
        path: Where it is below the step's folder; "" for the folder itself.
        form: What it is: "model", "data", or the kind of judge.
    """

    step: str
    path: str
    form: str


@dataclass(frozen=True)
class Step:
    """One unit of work, with a folder and a manifest of its own.

    Attributes:
        name: Stage and what is made, such as "preference/cost" or "train/MPO/seed-0".
        stage: Key of the configuration that it comes from.
        folder: Where it writes.
        settings: What it is to do; references stand for what other steps make.
        uses: References within ``settings`` → products.
        optional: References that it can do without, when their steps are not finished.
        data: Contents from elsewhere that it reads: what for → digest or revision.
        neutral: Settings that do not change what it makes.
        defaults: What a setting is when it is not given.
        keeps: Whether what is in its folder is of use when it runs again with other inputs, as answers are.
        seeds: Seeds by name.
        payload: What its runner needs besides.
    """

    name: str
    stage: str
    folder: Path
    settings: Mapping[str, Any]
    uses: Mapping[Reference, Product] = field(default_factory=dict)
    optional: Collection[Reference] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    neutral: Collection[str] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    keeps: bool = False
    seeds: Mapping[str, int] = field(default_factory=dict)
    payload: Any = None


@dataclass(frozen=True)
class StepState:
    """What is to be done about a step.

    Attributes:
        status: "finished" (and unchanged), "run", "resume", "perhaps" (if a step that it uses makes something else than
            before), "skipped", "blocked" (by a step that is skipped or failed, and not finished), or "failed".
        reasons: Why, each a clause.
        manifest: Of the step as it was finished last.
    """

    status: Status
    reasons: tuple[str, ...] = ()
    manifest: Manifest | None = None

    @property
    def usable(self) -> bool:
        """Whether others can use what is there."""
        return self.manifest is not None and self.status in ("finished", "skipped")


def plan_states(
    steps: Sequence[Step],
    code: str,
    digests: FileDigests,
    *,
    skipped: Collection[str] = (),
    thorough: bool = False,
) -> dict[str, StepState]:
    """States of all steps as they are now, in the order in which they would run.

    Args:
        steps: Each after those that it uses.
        code: Version of the code.
        digests: Of files.
        skipped: Names of steps that are not to run.
        thorough: Read all outputs again to see whether they were changed.
    """
    states: dict[str, StepState] = {}
    for step in steps:
        states[step.name] = state_of(step, states, code, digests, skip=step.name in skipped, thorough=thorough)
    return states


def state_of(
    step: Step,
    before: Mapping[str, StepState],
    code: str,
    digests: FileDigests,
    *,
    skip: bool = False,
    thorough: bool = False,
) -> StepState:
    """State of a step, given those of the steps before it.

    Raises:
        ConfigError: Its folder holds something that no pipeline wrote, and that running it would move.
    """
    broken = None
    try:
        manifest = read_manifest(step.folder)
    except CheckpointError as error:
        manifest, broken = None, str(error)
    inputs = inputs_of(step, before, code)
    hurt = None if manifest is None else damage(step.folder, manifest, digests, thorough=thorough)
    changed = [] if manifest is None else differences(manifest.inputs, inputs, step)
    if skip:
        if manifest is None or hurt is not None:
            return StepState("skipped", (hurt or broken or "it is not finished",), None)
        return StepState("skipped", tuple(changed), manifest)
    blocked = _blocked(step, before)
    if blocked:
        return StepState("blocked", blocked, None)
    if manifest is None:
        return _unfinished(step, inputs, broken)
    certain = [reason for reason in changed if not reason.endswith(PENDING)]
    if hurt is not None or certain:
        return StepState("run", tuple(([hurt] if hurt else []) + certain), manifest)
    if changed:
        return StepState("perhaps", tuple(_perhaps(reason) for reason in changed), manifest)
    return StepState("finished", (), manifest)


def inputs_of(step: Step, states: Mapping[str, StepState], code: str) -> dict[str, Any]:
    """What a step is made from, as plain values."""
    settings = {
        name: value
        for name, value in step.settings.items()
        if name not in step.neutral and (name not in step.defaults or value != step.defaults[name])
    }
    uses = {}
    for reference, product in step.uses.items():
        state = states.get(product.step)
        if state is not None and state.usable and state.manifest is not None:
            uses[str(reference)] = product_digest(state.manifest.outputs, product.path)
        elif reference not in step.optional or (state is not None and state.status not in MISSING):
            uses[str(reference)] = PENDING
    settings = json.loads(json.dumps(settings, default=str))  # as a manifest gives them back: lists, no dates
    return {"settings": settings, "data": dict(step.data), "uses": uses, "code": code}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], step: Step | None = None) -> list[str]:
    """In which inputs two makings of a step differ, each as a clause."""
    found = []
    old, new = dict(before.get("settings", {})), dict(now["settings"])
    defaults = {} if step is None else step.defaults
    for name in dict.fromkeys([*old, *new]):
        one, other = (side.get(name, defaults.get(name, "nothing")) for side in (old, new))
        found += _changes(name, one, other)
    for name in dict.fromkeys([*before.get("data", {}), *now["data"]]):
        one, other = before.get("data", {}).get(name), now["data"].get(name)
        if one != other:
            found.append(
                f"the content of {name} changed" if one and other else f"{name} is {'new' if other else 'gone'}"
            )
    for name in dict.fromkeys([*before.get("uses", {}), *now["uses"]]):
        one, other = before.get("uses", {}).get(name), now["uses"].get(name)
        if other == PENDING and one is not None:
            found.append(f"{name} is {PENDING}")
        elif one != other:
            found.append(f"{name} was made again, and is another" if one and other else f"{name} is {_news(other)}")
    if before.get("code") != now["code"]:
        found.append(f"Magnetar changed from {before.get('code')} to {now['code']}")
    return found


def _changes(name: str, one: Any, other: Any) -> list[str]:
    """Which entries of a setting changed; of mappings, which keys."""
    if one == other:
        return []
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            clause
            for key in dict.fromkeys([*one, *other])
            for clause in _changes(f"{name}.{key}", one.get(key, "nothing"), other.get(key, "nothing"))
        ]
    return [f"{name} changed from {one!r} to {other!r}"]


def _news(digest: str | None) -> str:
    return "gone" if digest is None else f"{PENDING}" if digest == PENDING else "new"


def _perhaps(reason: str) -> str:
    return reason.replace(f"is {PENDING}", "may come out as another")


def _unfinished(step: Step, inputs: Mapping[str, Any], broken: str | None) -> StepState:
    started = read_started(step.folder)
    if started is None:
        if broken is None:
            _refuse_foreign(step)
        return StepState("run", (broken or "not made yet",), None)
    changed = [reason for reason in differences(started[0], inputs, step) if not reason.endswith(PENDING)]
    if changed:
        return StepState("run", ("it was begun, and then", *changed), None)
    return StepState("resume", ("it was begun and not finished",), None)


def _refuse_foreign(step: Step) -> None:
    """Refuse a folder with files in it of which nothing says that a pipeline wrote them."""
    if step.keeps or not step.folder.exists() or (step.folder / STARTED_FILE).is_file():
        return
    if not step.folder.is_dir() or any(not path.name.startswith(STARTED_FILE) for path in step.folder.iterdir()):
        raise ConfigError(
            f"{step.folder} is where {step.name} would be made, but it holds files that no pipeline wrote; move them, "
            "or choose another output_dir"
        )


def _blocked(step: Step, before: Mapping[str, StepState]) -> tuple[str, ...]:
    reasons = []
    for reference, product in step.uses.items():
        state = before.get(product.step)
        if state is not None and state.status in MISSING and not state.usable and reference not in step.optional:
            reasons.append(f"{reference} is needed, and {product.step} {STUCK[state.status]}")
    return tuple(reasons)
