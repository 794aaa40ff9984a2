"""What a pipeline left in its folder: manifests of its steps, runs, comparisons and suites."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from magnetar.errors import DataError
from magnetar.evaluation.suite import SUITE_FILE
from magnetar.reports.run_data import read_json, read_json_lines

__all__ = ["MANIFEST_FILE", "PIPELINE_FILE", "STARTED_FILE", "PipelineData", "StepData", "read_pipeline"]

PIPELINE_FILE, MANIFEST_FILE, STARTED_FILE = "pipeline.json", "manifest.json", "started.json"
METRICS_FILE, COMPARISON_FILE, TRAINER_FILE = "metrics.jsonl", "comparison.json", "trainer_state.json"
DEPTH = 4  # stage / method / seed, and one more
UNMADE = ("failed", "blocked", "run", "resume", "perhaps")
"""What the pipeline says of steps that it would have made, or made again, and did not."""
_PASSED_OVER = ("answers", "judge_answers", "curve", "pages", "rounds")


@dataclass(frozen=True)
class StepData:
    """One step.

    Attributes:
        name: Such as "train/MPO/seed-0".
        folder: Its folder.
        status: "finished", "failed", "left out", "under way", as the pipeline says.
        manifest: What the manifest says; empty for a step that is not finished.
        reasons: Why it is as it is, each a clause.
    """

    name: str
    folder: Path
    status: str
    manifest: Mapping[str, Any]
    reasons: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether its products are there."""
        return bool(self.manifest)

    @property
    def outdated(self) -> bool:
        """Whether its products were made from something else than the pipeline would make them from now."""
        return self.finished and (self.status in UNMADE or (self.status == "skipped" and bool(self.reasons)))

    def part(self, name: str) -> Mapping[str, Any]:
        """An object of the manifest; empty where it is absent."""
        found = self.manifest.get(name)
        return found if isinstance(found, Mapping) else {}

    @property
    def hours(self) -> float | None:
        """Hours of work; None where they are not known."""
        found = self.manifest.get("hours")
        return float(found) if isinstance(found, int | float) else None


@dataclass(frozen=True)
class PipelineData:
    """A pipeline's folder, read.

    Attributes:
        name: Of the folder.
        steps: In the order in which they run; where that is not written down, in which they were finished.
        runs: Folders of training runs.
        comparisons: Files of comparisons.
        suites: Files of suites.
        logs: States of Hugging Face trainers (SFT, preference models), by step.
    """

    name: str
    steps: list[StepData]
    runs: list[Path]
    comparisons: list[Path]
    suites: list[Path]
    logs: dict[str, list[dict[str, Any]]]


def read_pipeline(folder: Path) -> PipelineData:
    """Find everything in a pipeline's folder that its page shows.

    Args:
        folder: Where the pipeline wrote.

    Returns:
        What was found.

    Raises:
        DataError: There is no step in it, or a manifest is damaged.
    """
    steps: list[StepData] = []
    found: dict[str, list[Path]] = {METRICS_FILE: [], COMPARISON_FILE: [], SUITE_FILE: []}
    for place, folders, files in os.walk(folder):
        here = Path(place)
        depth = len(here.relative_to(folder).parts)
        folders[:] = sorted(
            name for name in folders if depth < DEPTH and name not in _PASSED_OVER and name[:1] != "."
            and not name.startswith("checkpoint-")
        )  # fmt: skip
        for name, places in found.items():
            if name in files:
                places.append(here / name)
        if depth and (MANIFEST_FILE in files or STARTED_FILE in files):
            finished = MANIFEST_FILE in files
            manifest = read_json(here / MANIFEST_FILE) if finished else {}
            name = str(manifest.get("step") or here.relative_to(folder).as_posix())
            steps.append(StepData(name, here, "finished" if finished else "under way", manifest))
    steps = _in_order(folder, steps)
    if not steps:
        raise DataError(
            f"no stage in {str(folder)!r}: no folder in it holds a {MANIFEST_FILE}; expected the output_dir of "
            "`magnetar pipeline`"
        )
    order = {step.folder: at for at, step in enumerate(steps)}
    for places in found.values():
        places.sort(key=lambda path: min((at for up, at in order.items() if up in path.parents), default=len(order)))
    return PipelineData(
        name=folder.resolve().name,
        steps=steps,
        runs=[path.parent for path in found[METRICS_FILE] if _of_self_play(path)],
        comparisons=found[COMPARISON_FILE],
        suites=found[SUITE_FILE],
        logs={step.name: log for step in steps if (log := _trainer_log(step.folder))},
    )


def _in_order(folder: Path, found: list[StepData]) -> list[StepData]:
    """Steps as the pipeline lists them, with what it says of each; others after them."""
    path = folder / PIPELINE_FILE
    listed = read_json(path).get("steps") if path.is_file() else None
    found = sorted(found, key=lambda step: (not step.finished, str(step.manifest.get("finished", "")), step.name))
    if not isinstance(listed, list):
        return found
    by_name = {step.name: step for step in found}
    steps = []
    for entry in listed:
        if not isinstance(entry, Mapping) or "name" not in entry:
            raise DataError(f"{path}: a step is {entry!r}, expected an object with a name; run the pipeline again")
        name = str(entry["name"])
        step = by_name.pop(name, None) or StepData(name, folder / str(entry.get("folder", name)), "not begun", {})
        reasons = entry.get("reasons")
        told = tuple(map(str, reasons)) if isinstance(reasons, list) else ()
        steps.append(replace(step, status=str(entry.get("status", step.status)), reasons=told))
    return [*steps, *by_name.values()]


def _of_self_play(metrics: Path) -> bool:
    """SFT and preference models write metrics too, but count steps; self-play counts updates."""
    with metrics.open(encoding="utf-8", errors="replace") as lines:
        return '"update"' in lines.readline()


def _trainer_log(folder: Path) -> list[dict[str, Any]]:
    """What a supervised stage logged: its metrics, or its trainer's last state; empty where there is neither."""
    metrics = folder / METRICS_FILE
    if metrics.is_file():
        return [] if _of_self_play(metrics) else read_json_lines(metrics)
    states = [folder / TRAINER_FILE, *sorted(folder.glob(f"checkpoint-*/{TRAINER_FILE}"), key=_steps_of)]
    states = [path for path in states if path.is_file()]
    if not states:
        return []
    history = read_json(states[0] if states[0].parent == folder else states[-1]).get("log_history")
    return [line for line in history if isinstance(line, dict)] if isinstance(history, list) else []


def _steps_of(path: Path) -> int:
    number = path.parent.name.rsplit("-", 1)[-1]
    return int(number) if number.isdigit() else 0
