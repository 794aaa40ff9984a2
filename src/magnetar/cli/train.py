"""`magnetar train`: one self-play run, from a model's name to a folder with the aligned model and a report."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnetar.cli.run_options import RunOptions, parse_run
from magnetar.data import load_prompts, refuse_trained_prompts
from magnetar.errors import ConfigError, DataError
from magnetar.judges import parse_judge_spec, parse_scoring_spec
from magnetar.training.config import NashConfig

if TYPE_CHECKING:
    from magnetar.training.trainer import NashTrainer

__all__ = ["main", "run"]

PRINTED_SAMPLES = 4  # the report shows all


def main(argv: list[str]) -> int:
    """Parse, run, and return the exit status."""
    options, args, model_config = parse_run(argv)
    run(options, args, model_config)
    return 0


def run(
    options: RunOptions,
    args: NashConfig,
    model_config: Any,
    prepare: "Callable[[NashTrainer], None] | None" = None,
) -> "Path":
    """Train, save, evaluate and report; everything cheap is checked before the model is loaded.

    Args:
        options: What to train on what.
        args: Settings of the trainer.
        model_config: TRL's `ModelConfig`.
        prepare: Called with the trainer before it trains.

    Returns:
        The output folder.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    if options.eval_judge is not None:
        parse_judge_spec(options.eval_judge)
    flips = _flips(options)
    parse_judge_spec(options.judge, **flips)  # type: ignore[arg-type]
    method = args.build_method()
    if method.sampled_objective.needs_reward:
        parse_scoring_spec(options.judge, f"method {method.name!r}", **flips)  # type: ignore[arg-type]
    train_prompts, held_out = select_prompts(options, args.seed)
    args.check_held_out(held_out is not None)
    args.check_engine()
    folder = Path(str(args.output_dir))
    resume = _resume_folder(args, folder)

    # Heavy imports and loading only from here on.
    from trl import get_peft_config  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.judges import build_judge
    from magnetar.modeling.loading import load_policy
    from magnetar.training.checkpoints import refuse_other_run
    from magnetar.training.sharding import loading_whole_models
    from magnetar.training.trainer import NashTrainer

    if resume is None and not args.overwrite_output_dir:
        refuse_other_run(folder)
    _warn_of_memory(options, args, model_config)
    with loading_whole_models():
        judge = build_judge(options.judge, **flips)  # type: ignore[arg-type]
    model, tokenizer = load_policy(
        str(options.model),
        dtype=model_config.dtype or "float32",
        # TRL's default names the main branch, which folders and the embedded model do not have.
        revision=None if model_config.model_revision == "main" else model_config.model_revision,
        trust_remote_code=getattr(model_config, "trust_remote_code", False),
        attn_implementation=model_config.attn_implementation,
        is_trainable=True,
    )
    trainer = NashTrainer(
        model=model,
        judge=judge,
        args=args,
        train_dataset=train_prompts,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
    )
    trainer.labels = {"model": str(options.model), "dataset": str(options.dataset)}
    if prepare is not None:
        prepare(trainer)
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(str(folder))
    _finish(trainer, options, folder, held_out)
    trainer.accelerator.wait_for_everyone()
    # Closes trackers and the process group: its threads, if they outlive the interpreter, abort the process.
    trainer.accelerator.end_training()
    return folder


def _warn_of_memory(options: RunOptions, args: NashConfig, model_config: Any) -> None:
    """Say before anything is loaded that a run will probably not fit on its GPU."""
    from transformers import AutoConfig

    from magnetar.modeling.loading import locate_model
    from magnetar.training import sizing

    device_bytes = sizing.device_bytes_of(args)
    if device_bytes is None or args.process_index:
        return
    source = locate_model(str(options.model), None)
    trusted = getattr(model_config, "trust_remote_code", False)
    text = sizing.warning_of_memory(
        args,
        AutoConfig.from_pretrained((source.base or source).place, trust_remote_code=trusted),
        str(options.model),
        lora_rank=model_config.lora_r if model_config.use_peft else None,
        dtype=model_config.dtype or "float32",
        device_bytes=device_bytes,
    )
    if text is not None:
        print(text, file=sys.stderr)


def select_prompts(options: RunOptions, seed: int) -> tuple[Any, Any]:
    """Training prompts and held-out prompts, disjoint.

    Raises:
        DataError: A dataset that cannot be read, or too small for the hold-out.
    """
    if options.dataset == "demo":
        prompts = load_prompts("demo", options.dataset_split or "train")
        if options.eval_prompts is None:
            return _limited(prompts, options.limit, seed), load_prompts("demo", "test")
    else:
        prompts = load_prompts(str(options.dataset), options.dataset_split)
    prompts = _limited(prompts, options.limit, seed)
    if options.eval_prompts is not None:
        held_out = load_prompts(options.eval_prompts, options.eval_split)
        refuse_trained_prompts(held_out["prompt"], prompts["prompt"])
        return prompts, held_out
    if not options.eval_holdout:
        return prompts, None
    if options.eval_holdout >= len(prompts):
        raise DataError(
            f"eval_holdout is {options.eval_holdout} but {options.dataset} has {len(prompts)} prompts; lower it, or "
            "name held-out prompts with eval_prompts"
        )
    parts = prompts.train_test_split(test_size=options.eval_holdout, seed=seed)
    return parts["train"], parts["test"]


def _limited(prompts: Any, limit: int | None, seed: int) -> Any:
    if limit is None or limit >= len(prompts):
        return prompts
    if limit < 1:
        raise ConfigError(f"limit is {limit}, expected an integer of at least 1")
    return prompts.shuffle(seed=seed).select(range(limit))


def _flips(options: RunOptions) -> dict[str, Any]:
    """Options of a training judge who errs; empty for one who does not."""
    if options.judge_flip_share is None:
        return {}
    return {"flip_share": options.judge_flip_share, "flip_seed": options.judge_flip_seed}


def _resume_folder(args: NashConfig, folder: Path) -> str | None:
    """The checkpoint to resume from, found and checked before the model is loaded."""
    if not args.resume_from_checkpoint:
        return None
    from magnetar.training.checkpoints import latest_checkpoint, read_state

    asked = str(args.resume_from_checkpoint)
    found = latest_checkpoint(folder) if asked.lower() in ("true", "latest") else Path(asked)
    read_state(found, args)
    return str(found)


def _finish(trainer: Any, options: RunOptions, folder: Path, held_out: Any) -> None:
    """Evaluate against the reference, write model card and report."""
    from magnetar.cli.summary_text import print_summary
    from magnetar.evaluation import sample_records, summarize, write_evaluation
    from magnetar.judges import Flipped, build_judge
    from magnetar.reports import write_model_card, write_run_report

    summary = matchup = None
    judge = trainer.judge
    if options.report and held_out is not None:
        # Flips are for training: what comes of it is measured by the judge who does not err.
        own = trainer.judge.judge if isinstance(trainer.judge, Flipped) else trainer.judge
        judge = build_judge(options.eval_judge) if options.eval_judge is not None else own
        # Every process plays its share; the first one writes.
        matchup = trainer.play_against_reference(judge=judge, progress=True)
        summary = summarize(matchup)
    if not trainer.is_world_process_zero():
        return
    if summary is not None and matchup is not None:
        settings = {
            "dataset": options.eval_prompts or options.dataset,
            "judge": judge.name,
            "temperature": trainer.settings.temperature,
            "max_new_tokens": trainer.settings.max_completion_length,
            "responses_per_prompt": trainer.settings.eval_responses,
        }
        samples = sample_records(matchup, len(matchup.prompts))
        write_evaluation(folder, summary, samples, settings)
        print_summary(summary, samples[:PRINTED_SAMPLES])
    write_model_card(
        folder,
        base_model=str(options.model),
        method=trainer.method.name,
        judge=trainer.judge.name,
        dataset=str(options.dataset),
        summary=summary,
        settings=trainer.run_settings(),
    )
    if options.report:
        page = write_run_report(folder)
        print(f"report: {page}", file=sys.stderr)
    print(f"model: {folder}", file=sys.stderr)
