"""What a pipeline left in its folder: manifests of its steps, runs, comparisons and suites."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magnetar.errors import DataError
from magnetar.evaluation.suite import SUITE_FILE
from magnetar.reports.run_data import read_json

__all__ = ["MANIFEST_FILE", "STARTED_FILE", "PipelineData", "StepData", "read_pipeline"]

MANIFEST_FILE, STARTED_FILE = "manifest.json", "started.json"
METRICS_FILE, COMPARISON_FILE, TRAINER_FILE = "metrics.jsonl", "comparison.json", "trainer_state.json"
DEPTH = 4  # stage / method / seed, and one more
_PASSED_OVER = ("answers", "judge_answers", "curve", "pages")


@dataclass(frozen=True)
class StepData:
    """One step.

    Attributes:
        name: Such as "train/MPO/seed-0".
        folder: Its folder.
        finished: Whether it has a manifest.
        manifest: What the manifest says; empty for a step that is not finished.
    """

    name: str
    folder: Path
    finished: bool
    manifest: Mapping[str, Any]

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
        steps: In the order in which they were finished; unfinished ones last.
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
            steps.append(StepData(name, here, finished, manifest))
    if not steps:
        raise DataError(
            f"no stage in {str(folder)!r}: no folder in it holds a {MANIFEST_FILE}; expected the output_dir of "
            "`magnetar pipeline`"
        )
    steps.sort(key=lambda step: (not step.finished, str(step.manifest.get("finished", "")), step.name))
    return PipelineData(
        name=folder.resolve().name,
        steps=steps,
        runs=[path.parent for path in found[METRICS_FILE]],
        comparisons=found[COMPARISON_FILE],
        suites=found[SUITE_FILE],
        logs={step.name: log for step in steps if (log := _trainer_log(step.folder))},
    )


def _trainer_log(folder: Path) -> list[dict[str, Any]]:
    """What a Hugging Face trainer logged, from its last state; empty where there is none."""
    states = [folder / TRAINER_FILE, *sorted(folder.glob(f"checkpoint-*/{TRAINER_FILE}"), key=_steps_of)]
    states = [path for path in states if path.is_file()]
    if not states or (folder / METRICS_FILE).is_file():
        return []
    history = read_json(states[0] if states[0].parent == folder else states[-1]).get("log_history")
    return [line for line in history if isinstance(line, dict)] if isinstance(history, list) else []


def _steps_of(path: Path) -> int:
    number = path.parent.name.rsplit("-", 1)[-1]
    return int(number) if number.isdigit() else 0
