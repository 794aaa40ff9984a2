"""The stages of a pipeline, one file each: which steps a stage has, and what a step does.

Every stage is two functions: ``steps(work)`` checks the stage's settings and says what there is to do, before anything
runs; ``run(step, work, resume)`` does it and returns figures worth a line.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from magnetar.cli.pipeline.work import Work
from magnetar.pipeline.plan import Step

__all__ = ["run_step", "steps_of"]

MODULES = {
    "data": "magnetar.cli.pipeline.stages.data",
    "sft": "magnetar.cli.pipeline.stages.sft",
    "preference": "magnetar.cli.pipeline.stages.preference",
    "train": "magnetar.cli.pipeline.stages.train",
    "evaluate": "magnetar.cli.pipeline.stages.evaluate",
    "attack": "magnetar.cli.pipeline.stages.attack",
    "exploit": "magnetar.cli.pipeline.stages.exploit",
    "benchmark": "magnetar.cli.pipeline.stages.benchmark",
    "report": "magnetar.cli.pipeline.stages.report",
}


def steps_of(work: Work) -> list[Step]:
    """All steps, each after those that it uses.

    Raises:
        MagnetarError: Settings, files or references that cannot work.
    """
    found: list[Step] = []
    for stage in MODULES:
        if stage in work.config.stages:
            found += _function(stage, "steps")(work)
    return found


def run_step(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """Do what a step is there for.

    Args:
        step: Of `steps_of`.
        work: Of the pipeline.
        resume: Whether the step's folder holds the same step, begun and not finished.

    Returns:
        Figures for the manifest.
    """
    return _function(step.stage, "run")(step, work, resume)


def _function(stage: str, name: str) -> Callable[..., Any]:
    return getattr(import_module(MODULES[stage]), name)
