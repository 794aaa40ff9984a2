"""Settings of supervised fine-tuning: TRL's own, with defaults as in the rest of the library."""

from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

from magnetar.errors import ConfigError, unknown_name
from magnetar.training.sft.fitting import ON_LONG

__all__ = ["SupervisedConfig"]

FINGERPRINT = (
    *("max_length", "on_long", "packing", "packing_strategy", "completion_only_loss", "loss_type", "shuffle_dataset"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "train_sampling_strategy"),
    *("num_train_epochs", "max_steps", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay"),
    *("optim", "max_grad_norm", "bf16", "fp16", "disable_dropout", "seed", "data_seed"),
)
"""Settings that a resumed run must share with its checkpoint, or it would not be the same run."""


def _setting(default: Any, text: str) -> Any:
    """A field whose help text the command line shows."""
    return field(default=default, metadata={"help": text})


@dataclass
class SupervisedConfig(SFTConfig):
    """Settings of supervised fine-tuning; every field of `trl.SFTConfig` is here too.

    Raises:
        ConfigError: A value, or a combination of values, that cannot work; the message says why and what to do.
    """

    merge_adapter: bool = _setting(
        True,
        "Save a LoRA adapter merged into its model, so that another can be trained on it; false: the adapter alone.",
    )
    on_long: str = _setting(
        "cut_response",
        "What to do with more than max_length tokens: cut_response (as TRL does: the end is cut, and what has no "
        "response left is left out), cut_prompt (its beginning is cut, the response stays whole) or drop.",
    )
    disable_dropout: bool = _setting(True, "Set dropout to zero, as in self-play.")
    overwrite_output_dir: bool = _setting(False, "Allow an output folder that holds another run; it is replaced.")

    # Defaults that differ from TRL's: as in the other commands that train, precision is that of the model (`dtype`).
    bf16: bool | None = _setting(False, "Autocast to bfloat16.")
    gradient_checkpointing: bool | None = _setting(  # pyright: ignore[reportIncompatibleVariableOverride]
        None, "Older name of activation_checkpointing, which is off."
    )
    completion_only_loss: bool | None = _setting(True, "Fixed: the loss is that of the responses.")
    warmup_steps: float = _setting(0.05, "Steps of warm-up; below 1 their share of all steps.")

    def __post_init__(self) -> None:
        super().__post_init__()
        unfit = {
            "auto_find_batch_size": "another batch size would be another run; lower per_device_train_batch_size",
            "ignore_data_skip": "a resumed run would see other rows than the uninterrupted one",
        }
        for name, reason in unfit.items():
            if getattr(self, name):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, but {reason}; remove it")
        if self.on_long not in ON_LONG:
            raise ConfigError(unknown_name("on_long", self.on_long, ON_LONG))
        if self.on_long != "cut_response":
            self._check_on_long()
        if self.completion_only_loss is False:
            raise ConfigError("completion_only_loss is False, but only the responses are demonstrations; remove it")
        if self.max_length is not None and self.max_length < 8:
            raise ConfigError(f"max_length is {self.max_length}, expected at least 8 tokens, or null for no limit")
        for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected an integer of at least 1")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}, expected a positive number")
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # pinning is for accelerators; without one it only warns

    def _check_on_long(self) -> None:
        """What would have no effect, or another one."""
        for name, reason in (
            ("packing", "packed rows are filled to max_length whatever their length"),
            ("chat_template_path", "lengths are counted with the tokenizer's own chat template"),
        ):
            if getattr(self, name):
                raise ConfigError(f"on_long is {self.on_long!r} with {name}, but {reason}; leave one of them out")
        if self.max_length is None:
            raise ConfigError(
                f"on_long is {self.on_long!r}, but max_length is null, so that nothing is long; remove it"
            )

    def fingerprint(self) -> dict[str, Any]:
        """The settings that a resumed run must share with its checkpoint."""
        return {name: _plain(getattr(self, name)) for name in FINGERPRINT}


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
