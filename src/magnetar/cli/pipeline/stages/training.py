"""What the stages that train have in common: settings that change nothing, their step, and how they go on."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from magnetar.cli.comparison.plan import NEUTRAL as OF_RUNS
from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError, MagnetarError
from magnetar.pipeline.plan import Step

__all__ = ["CHECKPOINTS", "NEUTRAL", "dataset_step", "go_on_or_replace", "placed_settings"]

NEUTRAL = frozenset(
    OF_RUNS | {"output_dir", "report", "overwrite_output_dir", "resume_from_checkpoint", "dataset_num_proc"}
)
CHECKPOINTS = {"save_strategy": "steps", "save_steps": 0.2, "save_total_limit": 1}
"""A fifth of a run is the most that a kill costs, unless the settings say otherwise."""


def dataset_step(
    work: Work,
    name: str,
    own: Mapping[str, Any] | None,
    kinds: tuple[type, ...],
    parse: Callable[[dict[str, Any]], tuple[Any, Any, Any]],
    datasets: tuple[str, ...],
) -> tuple[Step, Any]:
    """A step that trains on a fixed dataset: SFT, or a preference model.

    Args:
        work: Of the pipeline.
        name: Of the step.
        own: Its settings in the configuration.
        kinds: Dataclasses of its options and settings.
        parse: The command's own reading of settings.
        datasets: Settings that name datasets.

    Returns:
        The step, and the parsed settings of its trainer.

    Raises:
        MagnetarError: Settings that cannot work.
    """
    stage, where = name.split("/")[0], name.replace("/", ": ")
    defaults = {f.name: f.default for kind in kinds for f in fields(kind)}
    settings = work.settings_for(defaults, {"model": work.config.model, **(own or {})})
    folder = work.step_folder(name)
    uses = work.used(settings, where)
    work.check_form(settings["model"], ("model",), f"{where}: model")
    for key in datasets:
        work.check_form(settings.get(key), ("data",), f"{where}: {key}")
    try:
        _, args, _ = parse({**CHECKPOINTS, **settings, "output_dir": str(folder)})
    except MagnetarError as error:
        raise type(error)(f"{where}: {error}") from error
    if args.world_size > 1:
        raise ConfigError("several processes were launched, but a pipeline runs each stage in one; start it without")
    data = {}
    for key in datasets:
        if settings.get(key) is not None and not work.used({"value": settings[key]}, where):
            data[str(settings[key])] = work.contents.dataset(str(settings[key]))
    if not work.used({"value": settings["model"]}, where):
        data[f"model {settings['model']}"] = work.contents.model(str(settings["model"]), settings.get("model_revision"))
    if settings.get("chat_template_path") is not None:
        data["the chat template"] = work.contents.template(str(settings["chat_template_path"]))
    step = Step(
        name, stage, folder, settings, uses=uses, data=data, neutral=NEUTRAL, defaults=defaults,
        seeds={"seed": args.seed},
    )  # fmt: skip
    return step, args


def placed_settings(step: Step, work: Work) -> dict[str, Any]:
    """Settings of a step's command: paths in place of references, and how often to save."""
    settings = {name: work.place(value) for name, value in step.settings.items()}
    return {**CHECKPOINTS, **settings, "output_dir": str(step.folder)}


def go_on_or_replace(args: Any, folder: Path, resume: bool) -> None:
    """Let a trainer go on from the newest checkpoint of a step that was begun, or start it anew.

    Args:
        args: Settings of the trainer, which are changed.
        folder: Of the step.
        resume: Whether what is in it is of the same step.
    """
    from magnetar.training.checkpoints import complete_checkpoints

    found = complete_checkpoints(folder) if resume else []
    if found:
        args.resume_from_checkpoint = str(found[-1])
    else:
        args.overwrite_output_dir = True  # what is there was cut short before its first checkpoint
