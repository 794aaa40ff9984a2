"""`SupervisedTrainer`: TRL's `SFTTrainer` that saves whole checkpoints, resumes exactly and stops on signals."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTTrainer  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

import magnetar
from magnetar.errors import ConfigError, DataError, ModelError
from magnetar.training.dataset_runs import DatasetRun, RunKind
from magnetar.training.preference.models import disable_dropout
from magnetar.training.sft.config import SupervisedConfig
from magnetar.training.sft.fitting import fit_demonstrations

__all__ = ["SUPERVISED_RUN", "SupervisedTrainer"]

SUPERVISED_RUN = RunKind(
    "supervised", "supervised fine-tuning", "demonstrations", older={"on_long": SupervisedConfig.on_long}
)


class SupervisedTrainer(DatasetRun, SFTTrainer):
    """Imitates responses: the loss is the mean negative log-likelihood of their tokens, TRL's own.

    Args:
        model: A causal language model.
        args: Settings.
        train_dataset: As `magnetar.data.load_demonstrations` returns it.
        eval_dataset: Demonstrations to measure on during training; None for none.
        processing_class: The model's tokenizer.
        peft_config: Adapter to train instead of all weights.

    Raises:
        ConfigError: Evaluations are asked for without data.
        DataError: No demonstration fits into ``max_length``.
        ModelError: Chat turns without a chat template, or a model that has an adapter already.
    """

    run_kind = SUPERVISED_RUN
    settings: SupervisedConfig

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: SupervisedConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        processing_class: PreTrainedTokenizerBase,
        peft_config: PeftConfig | None = None,
    ) -> None:
        _check(model, args, train_dataset, eval_dataset, processing_class)
        if args.disable_dropout:
            disable_dropout(model)
        rows = len(train_dataset)
        train_dataset, self.cut_prompts = _fitted(train_dataset, args, processing_class)
        if eval_dataset is not None:
            eval_dataset, _ = _fitted(eval_dataset, args, processing_class)
        with _no_bars():
            super().__init__(
                model=cast(Any, model),
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                peft_config=peft_config,
            )
        encoded = cast(Dataset, self.train_dataset)
        if not len(encoded):
            raise _none_fits(rows, args)
        self.left_out = 0 if args.packing else rows - len(encoded)
        self.full = 0 if args.packing else sum(len(ids) == args.max_length for ids in encoded["input_ids"])
        self.set_up_run(args)

    def run_settings(self) -> dict[str, Any]:
        """What a reader needs to know of the run, as plain values; written to `magnetar_config.json`."""
        peft = self.model.active_peft_config if isinstance(self.model, PeftModel) else None
        return {
            "magnetar": magnetar.__version__,
            "supervised": True,
            **self.labels,
            "demonstrations": len(cast(Dataset, self.train_dataset)),
            "left_out": self.left_out,
            "cut_prompts": self.cut_prompts,
            "lora_rank": getattr(peft, "r", None),
            "settings": self.settings.fingerprint()
            | {"dtype": str(next(cast(nn.Module, self.model).parameters()).dtype).removeprefix("torch.")},
        }

    def save_result(self, folder: str | Path) -> Path:
        """Write the model and its tokenizer; a LoRA adapter is merged into the model unless told otherwise.

        Args:
            folder: Where to; made if it is not there.

        Returns:
            The folder, which `magnetar train --model` loads.
        """
        folder = Path(folder)
        unwrapped = self.accelerator.unwrap_model(cast(nn.Module, self.model))
        if not isinstance(unwrapped, PeftModel) or not self.settings.merge_adapter:
            self.save_model(str(folder))  # gathers what is sharded
        elif self.args.should_save:
            dtype = cast(PreTrainedModel, unwrapped.get_base_model()).dtype
            model = cast(Any, unwrapped.merge_and_unload(safe_merge=True)).to(dtype)
            self.model = self.model_wrapped = model
            folder.mkdir(parents=True, exist_ok=True)
            model.save_pretrained(str(folder))
        if self.args.should_save:
            cast(Any, self.processing_class).save_pretrained(folder)
        self.accelerator.wait_for_everyone()
        return folder


def _fitted(dataset: Dataset, args: SupervisedConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, int]:
    """Demonstrations within ``max_length``, and of how many the prompt was cut; TRL cuts responses by itself."""
    if args.max_length is None or args.on_long == "cut_response":
        return dataset, 0
    fitted = fit_demonstrations(dataset, tokenizer, args.max_length, args.on_long)
    if not len(fitted.dataset):
        raise _none_fits(len(dataset), args)
    return fitted.dataset, fitted.cut


def _none_fits(rows: int, args: SupervisedConfig) -> DataError:
    what = "has a response" if args.on_long == "cut_response" else "fits"
    return DataError(f"none of {rows} demonstrations {what} within max_length={args.max_length} tokens; raise it")


def _check(
    model: PreTrainedModel | PeftModel,
    args: SupervisedConfig,
    train: Dataset,
    held_out: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    if args.eval_strategy != "no" and held_out is None:
        raise ConfigError(
            "eval_strategy asks for evaluations during training, but nothing is held out; set eval_holdout or "
            "eval_dataset, or eval_strategy='no'"
        )
    chat = not isinstance(train[0]["prompt"], str)
    if chat and tokenizer.chat_template is None and args.chat_template_path is None:
        raise ModelError(
            "the demonstrations are chat turns, but the tokenizer has no chat template; use an instruction-tuned "
            "model, name a template with chat_template_path, or give the demonstrations as plain text"
        )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the bars of `datasets`, which flash by for each of TRL's steps of preparation."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()
