"""Stage `benchmark`: general benchmarks by the LM Evaluation Harness, as `magnetar benchmark` runs them."""

from collections.abc import Mapping
from typing import Any

from magnetar.cli.pipeline.stages.commands import checked_flags, flags, spread_labels
from magnetar.cli.pipeline.stages.policies import chosen_policies
from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError
from magnetar.pipeline.plan import Step
from magnetar.pipeline.references import references_in

__all__ = ["run", "steps"]

STAGE = "benchmark"


def steps(work: Work) -> list[Step]:
    """The one step of the stage."""
    from magnetar.cli import benchmark

    own = dict(work.config.stages[STAGE])
    for key in ("model", "output_dir"):
        if key in own:
            raise ConfigError(f"{STAGE}: {key} is set by the stage; name policies with the key 'policies'")
    if not own.get("tasks"):
        raise ConfigError(f"{STAGE}: tasks is missing; name some, such as [hellaswag, arc_easy]")
    policies = spread_labels(chosen_policies(work, own.get("policies"), STAGE))
    shared = {"dtype": work.config.settings["dtype"]} if "dtype" in work.config.settings else {}
    settings = {**shared, **own, "policies": policies}
    folder = work.step_folder(STAGE)
    checked_flags(benchmark._parse, _words(settings, str(folder), lambda value: value), STAGE)
    data = {f"policy {label}": work.contents.policy(one) for label, one in policies.items() if not references_in([one])}
    if own.get("include_path"):
        data[str(own["include_path"])] = work.contents.dataset(str(own["include_path"]))
    return [
        Step(
            name=STAGE,
            stage=STAGE,
            folder=folder,
            settings=settings,
            uses=work.used(settings, STAGE),
            data=data,
            keeps=True,
            seeds={"seed": int(own.get("seed", 0))},
        )
    ]


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
