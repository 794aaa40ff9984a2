"""`magnetar sft`: supervised fine-tuning on demonstrations; a thin layer over TRL's `SFTTrainer`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnetar.cli.run_options import check_complete, parse_settings
from magnetar.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from datasets import Dataset

    from magnetar.training.sft.config import SupervisedConfig
    from magnetar.training.sft.trainer import SupervisedTrainer

__all__ = ["SupervisedOptions", "main", "parse", "run", "settings_of"]


@dataclass
class SupervisedOptions:
    """What to fine-tune on what."""

    model: str | None = field(default=None, metadata={"help": "Hub id or folder of the model, or 'demo'."})
    dataset: str | None = field(
        default=None,
        metadata={"help": "Demonstrations, or preference pairs whose better side is imitated: Hub id, file or folder."},
    )
    dataset_split: str | None = field(default=None, metadata={"help": "Split of the dataset; 'train' if it has one."})
    label: str | None = field(
        default=None, metadata={"help": "Which of Safe-RLHF's labels says what is better: better or safer."}
    )
    eval_dataset: str | None = field(default=None, metadata={"help": "Held-out demonstrations, measured in training."})
    eval_split: str | None = field(default=None, metadata={"help": "Split of the held-out demonstrations."})
    limit: int | None = field(default=None, metadata={"help": "Use only this many rows, drawn with the seed."})


def main(argv: list[str]) -> int:
    """Parse, run, and return the exit status."""
    run(*parse(argv))
    return 0


def parse(
    argv: list[str], defaults: "dict[str, Any] | None" = None
) -> "tuple[SupervisedOptions, SupervisedConfig, Any]":
    """Read flags and ``--config FILE.yaml``.

    Args:
        argv: Arguments after ``magnetar sft``.
        defaults: Values to start from, by field name.

    Returns:
        Options, settings of the trainer, TRL's `ModelConfig`.

    Raises:
        ConfigError: An unknown field, a value that cannot work, or something that is missing.
    """
    from trl import ModelConfig  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.training.sft.config import SupervisedConfig

    parsed = parse_settings((SupervisedOptions, SupervisedConfig, ModelConfig), argv, defaults, command="sft")
    options, args, model_config = parsed.values
    check_complete(options, model_config, parsed.given, ("model", "dataset"))
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"limit is {options.limit}, expected an integer of at least 1")
    if options.label not in (None, "better", "safer"):
        raise ConfigError(f"label is {options.label!r}, expected 'better' or 'safer'")
    if args.eval_strategy != "no" and options.eval_dataset is None:
        raise ConfigError(
            "eval_strategy asks for evaluations during training, but nothing is held out; name an eval_dataset, or set "
            "eval_strategy='no'"
        )
    return options, args, model_config


def run(options: SupervisedOptions, args: "SupervisedConfig", model_config: Any) -> Path:
    """Train and save; everything cheap is checked before the model is loaded.

    Args:
        options: What to fine-tune on what.
        args: Settings of the trainer.
        model_config: TRL's `ModelConfig`.

    Returns:
        The output folder, a model that `magnetar train --model` loads.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    train, held_out = select_demonstrations(options, args)
    folder = Path(str(args.output_dir))

    # Heavy imports and loading only from here on.
    from trl import get_peft_config  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.modeling.loading import load_policy, locate_model
    from magnetar.training.checkpoints import refuse_other_run
    from magnetar.training.dataset_runs import checkpoint_to_resume
    from magnetar.training.sft.trainer import SUPERVISED_RUN, SupervisedTrainer

    resume = checkpoint_to_resume(SUPERVISED_RUN, args.resume_from_checkpoint, args, folder)
    if resume is None and not args.overwrite_output_dir:
        refuse_other_run(folder)
    revision = None if model_config.model_revision == "main" else model_config.model_revision
    if locate_model(str(options.model), revision).base is not None:
        raise ModelError(
            f"{options.model!r} is an adapter, and fine-tuning starts from whole weights; merge it first "
            "(merge_and_unload), or give the base model"
        )
    model, tokenizer = load_policy(
        str(options.model),
        dtype=model_config.dtype or "float32",
        revision=revision,
        trust_remote_code=args.trust_remote_code,
        attn_implementation=model_config.attn_implementation,
        is_trainable=True,
    )
    trainer = SupervisedTrainer(model, args, train, held_out, tokenizer, get_peft_config(model_config))
    trainer.labels = {"model": str(options.model), "dataset": str(options.dataset)}
    if trainer.is_world_process_zero():
        _say_what_was_cut(trainer, len(train))
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_result(folder)
    if trainer.is_world_process_zero():
        print(f"model: {folder}", file=sys.stderr)
    # Closes trackers and the process group: its threads, if they outlive the interpreter, abort the process.
    trainer.accelerator.end_training()
    return folder


def _say_what_was_cut(trainer: "SupervisedTrainer", rows: int) -> None:
    """How many demonstrations are not learned from as they are, and what else could be done with them."""
    args = trainer.settings
    limit = f"max_length={args.max_length}"
    if args.on_long == "cut_response":
        if trainer.left_out:
            print(
                f"left out {trainer.left_out} of {rows} demonstrations, whose prompts alone fill {limit}",
                file=sys.stderr,
            )
        if trainer.full:
            print(f"{trainer.full} of {rows} demonstrations reach {limit}, where their responses end", file=sys.stderr)
        if trainer.left_out or trainer.full:
            print("note: on_long=cut_prompt keeps responses whole and cuts the beginnings of prompts", file=sys.stderr)
        return
    if trainer.cut_prompts:
        print(f"cut the beginnings of {trainer.cut_prompts} of {rows} prompts to fit {limit}", file=sys.stderr)
    if trainer.left_out:
        print(f"left out {trainer.left_out} of {rows} demonstrations, which do not fit {limit}", file=sys.stderr)


def select_demonstrations(options: SupervisedOptions, args: "SupervisedConfig") -> "tuple[Dataset, Dataset | None]":
    """What is imitated, and what is measured on.

    Raises:
        DataError: A dataset that cannot be read.
    """
    from magnetar.data import load_demonstrations, refuse_trained_prompts

    rows, dropped = load_demonstrations(str(options.dataset), options.dataset_split, label=options.label)
    if dropped and args.process_index == 0:
        print(f"{options.dataset}: left out {dropped} pairs without a better response", file=sys.stderr)
    if options.limit is not None and options.limit < len(rows):
        rows = rows.shuffle(seed=args.seed).select(range(options.limit))
    if options.eval_dataset is None:
        return rows, None
    held_out, _ = load_demonstrations(options.eval_dataset, options.eval_split, label=options.label)
    refuse_trained_prompts(held_out["prompt"], rows["prompt"])
    return rows, held_out


def settings_of(values: dict[str, Any]) -> "tuple[SupervisedOptions, SupervisedConfig, Any]":
    """The run that settings describe, as `parse` reads them from a file.

    Raises:
        ConfigError: As `parse`.
    """
    return parse([], values)
