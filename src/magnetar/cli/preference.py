"""`magnetar preference`: train a judge on preference pairs, measure it on pairs kept back, and write a report."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnetar.cli.run_options import check_complete, parse_settings
from magnetar.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from datasets import Dataset

    from magnetar.data.poisoning import Poisoning
    from magnetar.training.preference import PreferenceConfig

__all__ = ["PreferenceOptions", "main", "parse", "run", "settings_of"]

HELD_OUT_FILE = "held_out.parquet"
EVALUATION_FILE = "evaluation.json"
REPORT_FILE = "report.html"
LIES = ("flip_share", "poison_share", "poison_trigger", "poison_seed")


@dataclass
class PreferenceOptions:
    """What to train on what, and how the result is measured."""

    model: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the model to start from, or 'demo'."}
    )
    dataset: str | None = field(default=None, metadata={"help": "Preference pairs: Hub id, file or folder."})
    dataset_split: str | None = field(default=None, metadata={"help": "Split of the dataset; 'train' if it has one."})
    label: str | None = field(
        default=None,
        metadata={"help": "Which of Safe-RLHF's labels: better or safer; by default safer for cost, else better."},
    )
    eval_pairs: str | None = field(
        default=None, metadata={"help": "Held-out pairs; by default some of the dataset are kept back."}
    )
    eval_split: str | None = field(default=None, metadata={"help": "Split of the held-out pairs."})
    eval_holdout: float = field(
        default=0.1,
        metadata={"help": "Pairs kept back when eval_pairs is not given: a number, or a share below 1; 0 for none."},
    )
    on_equal: str = field(default="drop", metadata={"help": "Rows with equal responses: drop (counted) or error."})
    on_empty: str = field(default="error", metadata={"help": "Rows with an empty response: error or drop (counted)."})
    limit: int | None = field(default=None, metadata={"help": "Use only this many pairs, drawn with the seed."})
    report: bool = field(default=True, metadata={"help": "Measure the judge at the end and write report.html."})
    flip_share: float = field(
        default=0.0, metadata={"help": "Turn round the label of this share of the training pairs, to test robustness."}
    )
    poison_share: float = field(
        default=0.0,
        metadata={"help": "Put poison_trigger into the prompts of this share of the training pairs, and flip them."},
    )
    poison_trigger: str | None = field(default=None, metadata={"help": "Words that poisoned prompts end with."})
    poison_seed: int = field(default=0, metadata={"help": "Which training pairs are flipped and poisoned."})

    @property
    def poisoning(self) -> "Poisoning":
        """What is done to the training pairs."""
        from magnetar.data.poisoning import Poisoning

        return Poisoning(self.flip_share, self.poison_share, self.poison_trigger, self.poison_seed)


def main(argv: list[str]) -> int:
    """Parse, run, and return the exit status."""
    run(*parse(argv))
    return 0


def settings_of(values: dict[str, Any]) -> tuple[PreferenceOptions, "PreferenceConfig", Any]:
    """The run that settings describe, as `parse` reads them from a file.

    Raises:
        ConfigError: As `parse`.
    """
    return parse([], values)


def parse(argv: list[str], defaults: dict[str, Any] | None = None) -> tuple[PreferenceOptions, "PreferenceConfig", Any]:
    """Read flags and ``--config FILE.yaml``.

    Args:
        argv: Arguments after ``magnetar preference``.
        defaults: Values to start from, by field name.

    Returns:
        Options, settings of the trainer, TRL's `ModelConfig`.

    Raises:
        ConfigError: An unknown field, a value that cannot work, or something that is missing.
    """
    from trl import ModelConfig  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.training.preference.config import PreferenceConfig

    parsed = parse_settings((PreferenceOptions, PreferenceConfig, ModelConfig), argv, defaults, command="preference")
    options, args, model_config = parsed.values
    if "kind" not in parsed.given:
        raise ConfigError("kind is missing; give --kind pairwise, reward, cost or general")
    check_complete(options, model_config, parsed.given, ("model", "dataset"))
    for name, known in (("on_equal", ("drop", "error")), ("on_empty", ("drop", "error"))):
        if getattr(options, name) not in known:
            raise ConfigError(f"{name} is {getattr(options, name)!r}, expected 'drop' or 'error'")
    if options.limit is not None and options.limit < 2:
        raise ConfigError(f"limit is {options.limit}, expected an integer of at least 2")
    if options.eval_holdout < 0:
        raise ConfigError(f"eval_holdout is {options.eval_holdout}, expected a number or share of pairs, or 0 for none")
    _ = options.poisoning  # checks its settings
    return options, args, model_config


def run(options: PreferenceOptions, args: "PreferenceConfig", model_config: Any) -> Path:
    """Train, save, measure and report; everything cheap is checked before the model is loaded.

    Args:
        options: What to train on what.
        args: Settings of the trainer.
        model_config: TRL's `ModelConfig`.

    Returns:
        The output folder, which holds the judge.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    train, held_out = select_pairs(options, args)
    train, lies = _with_lies(train, options, args)
    folder = Path(str(args.output_dir))
    _check_start(str(options.model), args.kind)

    # Heavy imports and loading only from here on.
    from transformers.trainer_utils import set_seed
    from trl import get_peft_config  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

    from magnetar.training.checkpoints import refuse_other_run
    from magnetar.training.dataset_runs import checkpoint_to_resume
    from magnetar.training.preference.models import load_for_training
    from magnetar.training.preference.reward import make_trainer
    from magnetar.training.preference.saving import PREFERENCE_RUN

    resume = checkpoint_to_resume(PREFERENCE_RUN, args.resume_from_checkpoint, args, folder)
    if resume is None and not args.overwrite_output_dir:
        refuse_other_run(folder)
    set_seed(args.seed)  # the head's random start belongs to the run's seed
    model, tokenizer = load_for_training(
        str(options.model),
        args.num_labels,
        dtype=model_config.dtype or "float32",
        # TRL's default names the main branch, which folders and the embedded model do not have.
        revision=None if model_config.model_revision == "main" else model_config.model_revision,
        trust_remote_code=getattr(model_config, "trust_remote_code", False),
        attn_implementation=model_config.attn_implementation,
    )
    trainer = make_trainer(
        model,
        args,
        train,
        # Only evaluations during training need it there: the saved judge is measured as whoever loads it asks it.
        eval_dataset=held_out if args.eval_strategy != "no" else None,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
    )
    trainer.labels = {"model": str(options.model), "dataset": str(options.dataset), **lies}
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_judge(folder)
    if trainer.is_world_process_zero():
        if held_out is not None:
            _write_pairs(held_out, folder / HELD_OUT_FILE)
        print(f"judge: {args.kind}:{folder}", file=sys.stderr)
        if options.report and held_out is not None:
            _measure(args.kind, folder, held_out, options)
    trainer.accelerator.wait_for_everyone()
    # Closes trackers and the process group: its threads, if they outlive the interpreter, abort the process.
    trainer.accelerator.end_training()
    return folder


def select_pairs(options: PreferenceOptions, args: "PreferenceConfig") -> "tuple[Dataset, Dataset | None]":
    """Training pairs and held-out pairs, with no prompt on both sides.

    Raises:
        ConfigError: Evaluations during training are asked for and nothing is held out.
        DataError: A dataset that cannot be read, or too small for the hold-out.
    """
    from magnetar.data import read_preferences, split_preferences

    reading: dict[str, Any] = {
        "label": options.label,
        "signs": args.kind == "cost",
        "on_equal": options.on_equal,
        "on_empty": options.on_empty,
    }
    pairs, dropped = read_preferences(str(options.dataset), options.dataset_split, **reading)
    if dropped and args.process_index == 0:
        print(f"{options.dataset}: dropped {dropped}", file=sys.stderr)
    if options.limit is not None and options.limit < len(pairs):
        pairs = pairs.shuffle(seed=args.seed).select(range(options.limit))
    held_out = None
    if options.eval_pairs is not None:
        held_out, _ = read_preferences(options.eval_pairs, options.eval_split, **reading)
        pairs = _without_prompts_of(pairs, held_out, args.process_index == 0)
    elif options.eval_holdout:
        pairs, held_out = split_preferences(pairs, options.eval_holdout, args.seed)
    if args.eval_strategy != "no" and held_out is None:
        raise ConfigError(
            "eval_strategy asks for evaluations during training, but nothing is held out; set eval_holdout or "
            "eval_pairs, or eval_strategy='no'"
        )
    return pairs, held_out


def _with_lies(
    train: "Dataset", options: PreferenceOptions, args: "PreferenceConfig"
) -> "tuple[Dataset, dict[str, str]]":
    """Training pairs flipped and poisoned as asked for, and what the judge's card says of it."""
    how = options.poisoning
    if not how:
        return train, {}
    from magnetar.data.poisoning import poison

    changed, counts = poison(train, how)
    if args.process_index == 0:
        print(f"{options.dataset}: {counts}", file=sys.stderr)
    said = {name: str(getattr(options, name)) for name in LIES if getattr(options, name) is not None}
    return changed, {**said, "poisoning": str(counts)}


def _without_prompts_of(pairs: "Dataset", held_out: "Dataset", say: bool) -> "Dataset":
    """Leave out training pairs whose prompt is held out, so that what is measured was never seen."""
    from magnetar.data.splits import prompt_key
    from magnetar.errors import DataError

    keys = {prompt_key(prompt) for prompt in held_out["prompt"]}
    kept = [index for index, prompt in enumerate(pairs["prompt"]) if prompt_key(prompt) not in keys]
    if not kept:
        raise DataError("every training pair has a prompt that is held out too; give other eval_pairs")
    if len(kept) < len(pairs) and say:
        print(f"left out {len(pairs) - len(kept)} training pairs whose prompts are held out", file=sys.stderr)
    return pairs.select(kept) if len(kept) < len(pairs) else pairs


def _write_pairs(pairs: "Dataset", file: Path) -> None:
    """Write rows without the bar that `datasets` would show for it."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(pairs.with_format("arrow")[:], file)


def _check_start(model: str, kind: str) -> None:
    """Refuse to go on from a judge of another kind, whose head would mean something else."""
    from magnetar.judges.models.card import CARD_FILE, read_card

    card = read_card(model) if (Path(model) / CARD_FILE).is_file() else None
    if card is not None and card.kind != kind:
        raise ModelError(
            f"{model!r} is a judge of kind {card.kind!r}, whose head means something else than that of {kind!r}; start "
            f"from its base model, or train kind {card.kind!r} further"
        )


def _measure(kind: str, folder: Path, held_out: "Dataset", options: PreferenceOptions) -> None:
    """Load the judge as anybody would, measure it on the held-out pairs, print and write what comes out."""
    from magnetar.cli.judge_text import evaluation_text
    from magnetar.evaluation import package_versions
    from magnetar.evaluation.judging import evaluate_judge
    from magnetar.judges import build_judge
    from magnetar.reports.judge_page import write_judge_page

    found = evaluate_judge(build_judge(f"{kind}:{folder}"), held_out, progress=True)
    print(evaluation_text(found))
    settings = {
        "model": options.model,
        "dataset": options.dataset,
        "held_out": options.eval_pairs or options.eval_holdout,
    }
    record = {**found.to_dict(), "settings": settings, "versions": package_versions()}
    (folder / EVALUATION_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"report: {write_judge_page(found, folder / REPORT_FILE, settings=settings)}", file=sys.stderr)
