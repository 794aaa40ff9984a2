"""Settings of preference models: those of `transformers.TrainingArguments`, and what each kind adds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from transformers import TrainingArguments

from magnetar.errors import ConfigError, JudgeError, unknown_name
from magnetar.judges.models.card import KINDS_OF_MODEL

__all__ = ["FINGERPRINT", "PreferenceConfig"]

TEMPERATURE: Mapping[str, float] = MappingProxyType({"reward": 1.0, "cost": 1.0, "general": 0.1})
"""What divides a score unless told otherwise; a pairwise model has none."""

DEFAULT_DIMENSIONS = 8

FINGERPRINT = (
    "kind",
    "max_length",
    "on_long",
    "embedding_dim",
    "temperature",
    "normalize",
    "template",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "train_sampling_strategy",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "optim",
    "max_grad_norm",
    "bf16",
    "fp16",
    "disable_dropout",
    "use_trl",
    "seed",
    "data_seed",
)
"""Settings that a resumed run must share with its checkpoint, or it would not be the same run."""


def _setting(default: Any, text: str) -> Any:
    """A field whose help text the command line shows."""
    return field(default=default, metadata={"help": text})


@dataclass
class PreferenceConfig(TrainingArguments):
    """Settings of the training of a preference model; every field of `transformers.TrainingArguments` is here too.

    Fields left at None take the default of the kind: temperature 1 for "reward" and "cost", 0.1 for "general"; eight
    dimensions for "general"; the template of pairwise judges for "pairwise".

    Raises:
        ConfigError: A value, or a combination of values, that cannot work; the message says why and what to do.
    """

    kind: str = _setting("reward", "What to train: reward, cost, pairwise or general.")
    max_length: int = _setting(1024, "Longest input in tokens, prompt and chat template included.")
    on_long: str = _setting(
        "cut", "What to do with longer inputs: cut their longest parts as judges do, drop the pair, or error."
    )
    embedding_dim: int | None = _setting(None, "Dimensions of a general model's embedding, even; 8 by default.")
    temperature: float | None = _setting(
        None, "Divides differences of scores (1 for reward and cost) or a general model's score (0.1)."
    )
    normalize: bool = _setting(True, "Scale a general model's embeddings to unit length.")
    template: str | None = _setting(
        None, "What a pairwise model reads, with {prompt}, {first} and {second}; the judges' own by default."
    )
    merge_adapter: bool = _setting(True, "Save a LoRA adapter merged into its model; false saves the adapter alone.")
    share_beginnings: bool = _setting(
        True, "Read what both inputs of a pair have in common once, where the model allows; the loss is the same."
    )
    use_trl: bool = _setting(
        False, "Train kind 'reward' on hard labels with TRL's RewardTrainer instead of ours; the losses are the same."
    )
    disable_dropout: bool = _setting(True, "Set dropout to zero, so that both responses see the same network.")
    overwrite_output_dir: bool = _setting(False, "Allow an output folder that holds another run; it is replaced.")

    # Defaults that differ from transformers'
    learning_rate: float = _setting(1e-5, "Learning rate of the optimiser (about 1e-4 with LoRA).")
    lr_scheduler_type: str = _setting("linear", "Learning-rate schedule.")
    warmup_steps: float = _setting(0.05, "Steps of warm-up; below 1 their share of all steps.")
    num_train_epochs: float = _setting(1.0, "Passes over the pairs.")
    per_device_train_batch_size: int = _setting(8, "Pairs per process and micro-batch.")
    per_device_eval_batch_size: int = _setting(8, "Pairs per process and batch of an evaluation.")
    logging_steps: float = _setting(10, "Optimiser steps between log lines.")
    remove_unused_columns: bool = _setting(False, "Fixed: pairs have no columns to spare.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in KINDS_OF_MODEL:
            raise ConfigError(unknown_name("kind", self.kind, KINDS_OF_MODEL))
        if self.on_long not in ("cut", "drop", "error"):
            raise ConfigError(unknown_name("on_long", self.on_long, ("cut", "drop", "error")))
        if self.max_length < 8:
            raise ConfigError(f"max_length is {self.max_length}, expected at least 8 tokens")
        self._check_kind()
        self._check_combinations()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # pinning is for accelerators; without one it only warns

    @property
    def num_labels(self) -> int:
        """Outputs of the classification head: dimensions of the embedding, or one score."""
        return (self.embedding_dim or DEFAULT_DIMENSIONS) if self.kind == "general" else 1

    @property
    def score_temperature(self) -> float:
        """What divides scores, with the kind's default filled in; 1 for a pairwise model."""
        return self.temperature if self.temperature is not None else TEMPERATURE.get(self.kind, 1.0)

    @property
    def pair_template(self) -> str | None:
        """What a pairwise model reads; None for other kinds."""
        if self.kind != "pairwise":
            return None
        from magnetar.judges.models.pairwise import DEFAULT_TEMPLATE

        return self.template if self.template is not None else DEFAULT_TEMPLATE

    def fingerprint(self) -> dict[str, Any]:
        """The settings that a resumed run must share with its checkpoint."""
        return {name: getattr(self, name) for name in FINGERPRINT}

    def _check_kind(self) -> None:
        only_for = {"embedding_dim": "general", "template": "pairwise"}
        for name, kind in only_for.items():
            if getattr(self, name) is not None and self.kind != kind:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}, but kind is {self.kind!r}, which has none; remove it or set "
                    f"kind={kind!r}"
                )
        if self.use_trl and self.kind != "reward":
            raise ConfigError(
                f"use_trl is True, but kind is {self.kind!r}: TRL trains kind 'reward' only; drop use_trl"
            )
        if not self.normalize and self.kind != "general":
            raise ConfigError(f"normalize is False, but kind {self.kind!r} has no embedding; remove it")
        if self.embedding_dim is not None and (self.embedding_dim < 2 or self.embedding_dim % 2):
            raise ConfigError(
                f"embedding_dim is {self.embedding_dim}, expected an even number of at least 2: dimensions are taken "
                "two by two"
            )
        if self.temperature is not None:
            if self.kind == "pairwise":
                raise ConfigError("temperature is set, but a pairwise model's logit is not divided; remove it")
            if not (math.isfinite(self.temperature) and self.temperature > 0):
                raise ConfigError(f"temperature is {self.temperature}, expected a positive number")
        if self.template is not None:
            from magnetar.judges.models.pairwise import check_template

            try:
                check_template(self.template)
            except JudgeError as error:
                raise ConfigError(str(error)) from error

    def _check_combinations(self) -> None:
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected an integer of at least 1")
        unfit = {
            "remove_unused_columns": "pairs have no columns to spare",
            "auto_find_batch_size": "another batch size would be another run; lower per_device_train_batch_size",
            "ignore_data_skip": "a resumed run would see other pairs than the uninterrupted one",
            "label_smoothing_factor": "labels are soft already; give win_prob in the data",
        }
        for name, reason in unfit.items():
            if getattr(self, name):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, but {reason}; remove it")
