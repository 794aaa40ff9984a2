"""Reward models on hard labels through TRL's `RewardTrainer`, and the choice of a trainer for a run."""

from dataclasses import fields
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from trl import RewardConfig, RewardTrainer  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

from magnetar.errors import ConfigError
from magnetar.training.preference.config import PreferenceConfig
from magnetar.training.preference.preparation import prepare_run
from magnetar.training.preference.saving import SavesJudge
from magnetar.training.preference.trainer import PreferenceTrainer

__all__ = ["TrlRewardTrainer", "make_trainer"]

Model = PreTrainedModel | PeftModel


class TrlRewardTrainer(SavesJudge, RewardTrainer):
    """TRL's `RewardTrainer`, given our token ids, with our checkpoints, stop signals and judge's folder.

    It learns from hard labels, the Bradley–Terry loss at temperature 1. Given token ids, it neither renders nor drops
    pairs of its own.

    Args:
        model: Name of a model, or a classifier with one output.
        args: Settings; of kind "reward".
        train_dataset: As `magnetar.data.load_preferences` returns it, with labels 0 and 1 only.
        eval_dataset: Pairs to measure on during training; None for none.
        processing_class: The model's tokenizer; may be left out when the model is named.
        peft_config: Adapter to train instead of all weights.
        callbacks: Further callbacks.
        optimizers: Optimiser and schedule instead of those of ``args``.

    Raises:
        ConfigError: Settings that TRL's trainer does not have.
        DataError: Pairs that are missing or too long.
        ModelError: A model or tokenizer that cannot be used as asked.
    """

    def __init__(
        self,
        model: str | Model,
        args: PreferenceConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
    ) -> None:
        reason = unfit_for_trl(args, train_dataset)
        if reason is not None:
            raise ConfigError(
                f"TRL's RewardTrainer cannot train this: {reason}; drop use_trl (in Python, use PreferenceTrainer)"
            )
        prepared = prepare_run(model, args, train_dataset, eval_dataset, processing_class, peft_config)
        held_out = None if prepared.held_out is None else _as_trl_pairs(prepared.held_out.dataset)
        super().__init__(
            model=prepared.model,
            args=_as_reward_config(args),
            train_dataset=_as_trl_pairs(prepared.train.dataset),
            eval_dataset=held_out,
            processing_class=prepared.tokenizer,
            callbacks=callbacks,
            optimizers=cast(Any, optimizers),
        )
        self.set_up_run(args)


def make_trainer(model: str | Model, args: PreferenceConfig, train_dataset: Dataset, **options: Any) -> SavesJudge:
    """The trainer of a run: TRL's for reward models where ``use_trl`` asks for it, ours otherwise.

    Args:
        model: Name of a model, or a classifier.
        args: Settings.
        train_dataset: As `magnetar.data.load_preferences` returns it.
        **options: Further arguments of the trainer.

    Returns:
        A trainer with `train` and `save_judge`.
    """
    kind = TrlRewardTrainer if args.use_trl else PreferenceTrainer
    return kind(model, args, train_dataset, **options)


def unfit_for_trl(args: PreferenceConfig, pairs: Dataset) -> str | None:
    """Why TRL's trainer cannot train this, in words; None if it can."""
    if args.kind != "reward":
        return f"kind is {args.kind!r}, and it trains kind 'reward' only"
    if args.score_temperature != 1.0:
        return f"temperature is {args.score_temperature}, and its loss has none"
    soft = next((index for index, value in enumerate(pairs["win_prob"]) if value not in (0.0, 1.0)), None)
    if soft is not None:
        return f"row {soft} has the soft label {pairs['win_prob'][soft]}, and its labels are hard"
    return None


def _as_reward_config(args: PreferenceConfig) -> RewardConfig:
    shared = {f.name: getattr(args, f.name) for f in fields(TrainingArguments) if f.init}
    # Cut to length before; the trainer keeps the columns that it needs itself.
    shared |= {"max_length": None, "disable_dropout": args.disable_dropout, "remove_unused_columns": True}
    return RewardConfig(**shared)


def _as_trl_pairs(pairs: Dataset) -> Dataset:
    """Token ids of the chosen and the rejected response, by TRL's names."""
    columns: dict[str, list[Any]] = {"chosen_ids": [], "rejected_ids": [], "length": pairs["length"][:]}
    for first, second, win_prob in zip(pairs["first_ids"], pairs["second_ids"], pairs["win_prob"], strict=True):
        chosen, rejected = (first, second) if win_prob == 1.0 else (second, first)
        columns["chosen_ids"].append(chosen)
        columns["rejected_ids"].append(rejected)
    return Dataset.from_dict(columns)
