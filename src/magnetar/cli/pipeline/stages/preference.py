"""Stage `preference`: judges that are learned from pairs; ``preference:NAME`` is a judge of its kind."""

import json
from typing import Any

from magnetar.cli.pipeline.stages.training import NEUTRAL, dataset_step, go_on_or_replace, placed_settings
from magnetar.cli.pipeline.work import Work
from magnetar.pipeline.plan import Product, Step

__all__ = ["run", "steps"]


def steps(work: Work) -> list[Step]:
    """One step for each preference model."""
    from dataclasses import replace

    from trl import ModelConfig  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.cli.preference import PreferenceOptions, settings_of
    from magnetar.training.preference.config import PreferenceConfig

    kinds = (PreferenceOptions, PreferenceConfig, ModelConfig)
    found = []
    for name, own in work.config.stages["preference"].items():
        step, args = dataset_step(work, f"preference/{name}", own, kinds, settings_of, ("dataset", "eval_pairs"))
        found.append(replace(step, neutral=NEUTRAL - {"report"}))  # whether the judge is measured
        work.offer(f"preference:{name}", Product(step.name, "", args.kind))
    return found


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """What `magnetar preference` does."""
    from magnetar.cli.preference import EVALUATION_FILE, settings_of
    from magnetar.cli.preference import run as train

    options, args, model_config = settings_of(placed_settings(step, work))
    go_on_or_replace(args, step.folder, resume)
    train(options, args, model_config)
    measured = step.folder / EVALUATION_FILE
    if not measured.is_file():
        return {}
    record = json.loads(measured.read_text(encoding="utf-8"))
    return {"held_out_pairs": record["pairs"], "accuracy": record["labels"]["accuracy"]}
