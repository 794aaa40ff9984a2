"""Stage `sft`: the model imitates demonstrations; ``sft:model`` is what comes out."""

import json
from typing import Any

from magnetar.cli.pipeline.stages.training import dataset_step, go_on_or_replace, placed_settings
from magnetar.cli.pipeline.work import Work
from magnetar.pipeline.plan import Product, Step

__all__ = ["run", "steps"]

STEP = "sft"


def steps(work: Work) -> list[Step]:
    """The one step of the stage."""
    from trl import ModelConfig  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.cli.sft import SupervisedOptions, settings_of
    from magnetar.training.sft.config import SupervisedConfig

    kinds = (SupervisedOptions, SupervisedConfig, ModelConfig)
    step, _ = dataset_step(work, STEP, work.config.stages[STEP], kinds, settings_of, ("dataset", "eval_dataset"))
    work.offer("sft:model", Product(STEP, "", "model"))
    return [step]


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """What `magnetar sft` does."""
    from magnetar.cli.sft import run as fine_tune
    from magnetar.cli.sft import settings_of

    options, args, model_config = settings_of(placed_settings(step, work))
    go_on_or_replace(args, step.folder, resume)
    fine_tune(options, args, model_config)
    lines = (step.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [row["loss"] for line in lines if "loss" in (row := json.loads(line))]
    return {"first_loss": losses[0], "last_loss": losses[-1]} if losses else {}
