"""Stage `benchmark`: general benchmarks by the LM Evaluation Harness, as `magnetar benchmark` runs them."""

from collections.abc import Mapping
from typing import Any

from magnetar.cli.pipeline.stages.commands import checked_flags, command_settings, command_step, flags
from magnetar.cli.pipeline.work import Work
from magnetar.pipeline.plan import Step

__all__ = ["run", "steps"]

STAGE = "benchmark"


def steps(work: Work) -> list[Step]:
    """The one step of the stage."""
    from magnetar.cli import benchmark

    settings = command_settings(work, STAGE, "model", {"tasks": "[hellaswag, arc_easy]"})
    checked_flags(benchmark._parse, _words(settings, str(work.step_folder(STAGE)), lambda value: value), STAGE)
    return [command_step(work, STAGE, settings, ("include_path",))]


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """What `magnetar benchmark` does; answers are kept, so that it goes on by itself."""
    from magnetar.cli import benchmark
    from magnetar.evaluation.suite import read_suite

    del resume
    benchmark.main(_words(step.settings, str(step.folder), work.place))
    result = read_suite(step.folder)
    return {f"{record.policy}: {record.task}, {record.metric}": record.value for record in result.benchmarks}


def _words(settings: Mapping[str, Any], folder: str, place: Any) -> list[str]:
    """The command's flags."""
    named = {key: value for key, value in settings.items() if key != "policies"}
    if isinstance(named.get("tasks"), list):
        named["tasks"] = ",".join(map(str, named["tasks"]))
    models = [word for label, one in settings["policies"].items() for word in ("--model", f"{label}={place(one)}")]
    return models + flags({"output_dir": folder, **named})
