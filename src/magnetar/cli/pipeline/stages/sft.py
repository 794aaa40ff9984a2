"""Stage `sft`: the model imitates demonstrations; ``sft:model`` is what comes out."""

from dataclasses import fields
from typing import Any

from magnetar.cli.pipeline.stages.neutral import CHECKPOINTS, NEUTRAL
from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError, MagnetarError
from magnetar.pipeline.plan import Product, Step

__all__ = ["run", "steps"]

STEP = "sft"


def steps(work: Work) -> list[Step]:
    """The one step of the stage."""
    from trl import ModelConfig  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.cli.sft import SupervisedOptions, settings_of
    from magnetar.training.sft.config import SupervisedConfig

    kinds = (SupervisedOptions, SupervisedConfig, ModelConfig)
    defaults = {f.name: f.default for kind in kinds for f in fields(kind)}
    own = dict(work.config.stages[STEP])
    settings = work.settings_for(defaults, {"model": work.config.model, **own})
    folder = work.step_folder(STEP)
    uses = work.used(settings, STEP)
    work.check_form(settings["model"], ("model",), f"{STEP}: model")
    work.check_form(settings.get("dataset"), ("data",), f"{STEP}: dataset")
    try:
        _, args, _ = settings_of({**CHECKPOINTS, **settings, "output_dir": str(folder)})
    except MagnetarError as error:
        raise type(error)(f"{STEP}: {error}") from error
    if args.world_size > 1:
        raise ConfigError("several processes were launched, but a pipeline runs each stage in one; start it without")
    data = {}
    for name in ("dataset", "eval_dataset"):
        if settings.get(name) is not None and not work.used({"value": settings[name]}, STEP):
            data[str(settings[name])] = work.contents.dataset(str(settings[name]))
    if not work.used({"value": settings["model"]}, STEP):
        data[f"model {settings['model']}"] = work.contents.model(str(settings["model"]), settings.get("model_revision"))
    if settings.get("chat_template_path") is not None:
        data["the chat template"] = work.contents.template(str(settings["chat_template_path"]))
    work.offer("sft:model", Product(STEP, "", "model"))
    return [
        Step(
            STEP, STEP, folder, settings, uses=uses, data=data, neutral=NEUTRAL, defaults=defaults,
            seeds={"seed": args.seed},
        )
    ]  # fmt: skip


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """What `magnetar sft` does."""
    import json

    from magnetar.cli.sft import run as fine_tune
    from magnetar.cli.sft import settings_of
    from magnetar.training.checkpoints import complete_checkpoints

    settings = {name: work.place(value) for name, value in step.settings.items()}
    options, args, model_config = settings_of({**CHECKPOINTS, **settings, "output_dir": str(step.folder)})
    found = complete_checkpoints(step.folder) if resume else []
    if found:
        args.resume_from_checkpoint = str(found[-1])
    else:
        args.overwrite_output_dir = True  # what is there was cut short before its first checkpoint
    fine_tune(options, args, model_config)
    lines = (step.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [row["loss"] for line in lines if "loss" in (row := json.loads(line))]
    return {"first_loss": losses[0], "last_loss": losses[-1]} if losses else {}
