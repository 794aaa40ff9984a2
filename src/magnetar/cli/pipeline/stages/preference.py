"""Stage `preference`: judges that are learned from pairs; ``preference:NAME`` is a judge of its kind."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from magnetar.cli.pipeline.stages.neutral import CHECKPOINTS, NEUTRAL
from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError, MagnetarError
from magnetar.pipeline.plan import Product, Step

__all__ = ["run", "steps"]


def steps(work: Work) -> list[Step]:
    """One step for each preference model."""
    from trl import ModelConfig  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.cli.preference import PreferenceOptions
    from magnetar.training.preference.config import PreferenceConfig

    kinds = (PreferenceOptions, PreferenceConfig, ModelConfig)
    defaults = {f.name: f.default for kind in kinds for f in fields(kind)}
    found = []
    for name, own in work.config.stages["preference"].items():
        step, where = f"preference/{name}", f"preference: {name}"
        settings = work.settings_for(defaults, {"model": work.config.model, **dict(own)})
        folder = work.step_folder(step)
        uses = work.used(settings, where)
        work.check_form(settings["model"], ("model",), f"{where}: model")
        for key in ("dataset", "eval_pairs"):
            work.check_form(settings.get(key), ("data",), f"{where}: {key}")
        args = _checked(settings, str(folder), where)
        found.append(
            Step(
                name=step,
                stage="preference",
                folder=folder,
                settings=settings,
                uses=uses,
                data=_data(settings, work, where),
                neutral=NEUTRAL - {"report"},
                defaults=defaults,
                seeds={"seed": args.seed},
            )
        )
        work.offer(f"preference:{name}", Product(step, "", args.kind))
    return found


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """What `magnetar preference` does."""
    from magnetar.cli.preference import EVALUATION_FILE, settings_of
    from magnetar.cli.preference import run as train
    from magnetar.training.checkpoints import complete_checkpoints

    settings = {name: work.place(value) for name, value in step.settings.items()}
    options, args, model_config = settings_of({**CHECKPOINTS, **settings, "output_dir": str(step.folder)})
    found = complete_checkpoints(step.folder) if resume else []
    if found:
        args.resume_from_checkpoint = str(found[-1])
    else:
        args.overwrite_output_dir = True  # what is there was cut short before its first checkpoint
    train(options, args, model_config)
    measured = step.folder / EVALUATION_FILE
    if not measured.is_file():
        return {}
    record = json.loads(measured.read_text(encoding="utf-8"))
    return {"held_out_pairs": record["pairs"], "accuracy": record["labels"]["accuracy"]}


def _checked(settings: Mapping[str, Any], folder: str, where: str) -> Any:
    from magnetar.cli.preference import settings_of

    try:
        _, args, _ = settings_of({**CHECKPOINTS, **settings, "output_dir": folder})
    except MagnetarError as error:
        raise type(error)(f"{where}: {error}") from error
    if args.world_size > 1:
        raise ConfigError("several processes were launched, but a pipeline runs each stage in one; start it without")
    return args


def _data(settings: Mapping[str, Any], work: Work, where: str) -> dict[str, str]:
    data = {}
    for key in ("dataset", "eval_pairs"):
        if settings.get(key) is not None and not work.used({"value": settings[key]}, where):
            data[str(settings[key])] = work.contents.dataset(str(settings[key]))
    if not work.used({"value": settings["model"]}, where):
        data[f"model {settings['model']}"] = work.contents.model(str(settings["model"]), settings.get("model_revision"))
    return data
