"""What both trainers of preference models do before they are built: load, check, encode."""

import os
from dataclasses import dataclass
from typing import Any, cast

from accelerate.utils import str_to_bool
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import set_seed

from magnetar.errors import ConfigError, DataError, ModelError
from magnetar.modeling.classifiers import tree_obstacle
from magnetar.training.preference.config import PreferenceConfig
from magnetar.training.preference.encoding import EncodedPairs, encode_pairs
from magnetar.training.preference.models import load_for_training, prepare_classifier

__all__ = ["PreparedRun", "prepare_run"]


@dataclass(frozen=True)
class PreparedRun:
    """A model ready to be trained, and its pairs as token ids.

    Attributes:
        model: With its head, and its adapter if there is one.
        tokenizer: With a pad token.
        train: Pairs to learn from.
        held_out: Pairs to measure on during training; None for none.
        share_beginnings: Whether what both inputs of a pair have in common is read once.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    train: EncodedPairs
    held_out: EncodedPairs | None
    share_beginnings: bool


def prepare_run(
    model: str | PreTrainedModel | PeftModel,
    args: PreferenceConfig,
    train_dataset: Dataset,
    eval_dataset: Dataset | None,
    tokenizer: PreTrainedTokenizerBase | None,
    peft_config: PeftConfig | None,
) -> PreparedRun:
    """Load, check and encode; see `PreferenceTrainer` for the arguments.

    Raises:
        ConfigError: Settings that cannot work together.
        DataError: Pairs that are missing, too long or without signs.
        ModelError: A model or tokenizer that cannot be used as asked.
    """
    if args.eval_strategy != "no" and eval_dataset is None:
        raise ConfigError(
            "eval_strategy asks for evaluations during training, but there are no held-out pairs; give an eval_dataset "
            "(eval_dataset or eval_holdout on the command line), or set eval_strategy='no'"
        )
    zero: Any = args.deepspeed_plugin
    if zero is not None and zero.zero_stage == 3:
        raise ConfigError(
            "zero_stage is 3, and a preference model is not trained in DeepSpeed's pieces; shard it with FSDP2 "
            "(examples/accelerate/fsdp2.yaml), or launch with data parallelism (examples/accelerate/ddp.yaml)"
        )
    by_wrappers = str_to_bool(os.environ.get("FSDP_ACTIVATION_CHECKPOINTING", "false")) == 1
    if peft_config is not None and by_wrappers and str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")) == 1:
        raise ConfigError(
            "fsdp_activation_checkpointing is true, whose wrappers hide an adapter's weights from PEFT, so that "
            "nothing would be saved; set it to false, and gradient_checkpointing: true in the run's settings"
        )
    for dataset in (train_dataset, eval_dataset):
        _check_columns(dataset, args.kind)
    if args.n_gpu > 1:
        # torch's DataParallel, which one process would use, would split pairs in the middle.
        print(f"one process uses 1 of the {args.n_gpu} visible GPUs; run with `accelerate launch` to use them all")
        args._n_gpu = 1
    set_seed(args.seed)  # the head's and an adapter's random start belong to the run's seed
    if isinstance(model, str):
        model, loaded = load_for_training(model, args.num_labels)
        tokenizer = tokenizer or loaded
    if tokenizer is None:
        raise ModelError("processing_class is None, expected the model's tokenizer (give one, or name the model by id)")
    share = args.share_beginnings and _can_share(model, args)
    model = prepare_classifier(model, tokenizer, peft_config, args)
    train = encode_pairs(train_dataset, tokenizer, args)
    held_out = None if eval_dataset is None else encode_pairs(eval_dataset, tokenizer, args)
    if args.process_index == 0:
        _say_what_was_cut(train, args)
    return PreparedRun(model, tokenizer, train, held_out, share)


def _check_columns(dataset: Dataset | None, kind: str) -> None:
    if dataset is None:
        return
    needed = ["prompt", "first", "second", "win_prob", *(("first_safe", "second_safe") if kind == "cost" else ())]
    missing = [name for name in needed if name not in dataset.column_names]
    if missing:
        how = "signs=True" if missing[0].endswith("_safe") else "the source"
        raise DataError(
            f"the pairs have no column {missing[0]!r}, which kind {kind!r} needs; read them with "
            f"magnetar.data.load_preferences and {how}"
        )
    if not len(dataset):
        raise DataError("there are no pairs, expected at least one")


def _can_share(model: PreTrainedModel | PeftModel, args: PreferenceConfig) -> bool:
    base = cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model
    obstacle = tree_obstacle(base)
    if obstacle is not None and args.process_index == 0:
        print(f"pairs are read in padded rows, what they share twice: {obstacle}")
    return obstacle is None


def _say_what_was_cut(train: EncodedPairs, args: PreferenceConfig) -> None:
    total = len(train.dataset) + train.dropped
    if train.cut:
        print(
            f"{train.cut} of {total} pairs have an input of more than max_length={args.max_length} tokens: cut to fit"
        )
    if train.dropped:
        print(f"dropped {train.dropped} of {total} pairs longer than max_length={args.max_length} tokens")
