"""`SupervisedTrainer`: TRL's `SFTTrainer` that saves whole checkpoints, resumes exactly and stops on signals."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from trl import SFTTrainer  # pyright: ignore[reportPrivateImportUsage] - trl exports lazily

import magnetar
from magnetar.errors import CheckpointError, ConfigError, DataError, ModelError
from magnetar.training import checkpoints
from magnetar.training.callbacks import StopSignals, TrainingInterrupted
from magnetar.training.preference.callbacks import PreferenceConsole, PreferenceFiles
from magnetar.training.preference.models import disable_dropout
from magnetar.training.preference.saving import digest_of
from magnetar.training.resumable import refuse_other_run
from magnetar.training.sft.config import SupervisedConfig
from magnetar.training.starting_point import digest_of_start

__all__ = ["SupervisedTrainer", "check_resume"]


class SupervisedTrainer(SFTTrainer):
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
        DataError: No demonstration has a response within ``max_length``.
        ModelError: Chat turns without a chat template, or a model that has an adapter already.
    """

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
            raise DataError(
                f"none of {rows} demonstrations has a response within max_length={args.max_length} tokens; raise it"
            )
        self.left_out = 0 if args.packing else rows - len(encoded)
        self.settings = args
        self.labels: dict[str, str] = {}  # what a reader should see in place of a path or an object
        self.data_digest = digest_of(encoded)
        self.start_digest = digest_of_start(cast(nn.Module, self.model))
        # Ours print one line a log and keep the bar; transformers' print dictionaries.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.signals = StopSignals(self.accelerator)
        self.add_callback(self.signals)
        self.add_callback(PreferenceFiles(self))
        if not args.disable_tqdm and args.process_index == 0:
            self.add_callback(PreferenceConsole())

    def run_settings(self) -> dict[str, Any]:
        """What a reader needs to know of the run, as plain values; written to `magnetar_config.json`."""
        peft = self.model.active_peft_config if isinstance(self.model, PeftModel) else None
        return {
            "magnetar": magnetar.__version__,
            "supervised": True,
            **self.labels,
            "demonstrations": len(cast(Dataset, self.train_dataset)),
            "left_out": self.left_out,
            "lora_rank": getattr(peft, "r", None),
            "settings": self.settings.fingerprint()
            | {"dtype": str(next(cast(nn.Module, self.model).parameters()).dtype).removeprefix("torch.")},
        }

    def train(  # pyright: ignore[reportIncompatibleMethodOverride]  # the rest goes through as it is
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> Any:
        """Train; see `transformers.Trainer.train`. A finished run that is resumed is loaded, and trains nothing.

        Args:
            resume_from_checkpoint: A checkpoint folder, or True for the newest complete one of ``output_dir``.
            **kwargs: Passed on.

        Returns:
            The result of `transformers.Trainer.train`.

        Raises:
            CheckpointError: The checkpoint is incomplete, damaged or of another run, or saving failed.
            ConfigError: The output folder holds another run.
            TrainingInterrupted: After SIGINT or SIGTERM, once a checkpoint is written.
        """
        run_dir = Path(cast(str, self.args.output_dir))
        if resume_from_checkpoint:
            found = resume_from_checkpoint
            folder = checkpoints.latest_checkpoint(run_dir) if found is True else Path(str(found))
            check_resume(folder, self.settings, {"data": self.data_digest, "start": self.start_digest})
            resume_from_checkpoint = str(folder)
        elif not self.settings.overwrite_output_dir:
            refuse_other_run(run_dir)
        elif self.args.should_save:
            checkpoints.remove_all(run_dir)
        with self.signals.installed():
            result = super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
        if self.signals.received is not None and self.state.global_step < self.state.max_steps:
            raise TrainingInterrupted(self.signals.received, run_dir / f"checkpoint-{self.state.global_step}")
        return result

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Nothing in a finished run that is resumed: transformers looks for the end only after a step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save everything, mark the checkpoint as complete, and only then remove older ones."""
        with checkpoints.whole_checkpoint(self.args, self.state) as folder:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                run = {"data": self.data_digest, "start": self.start_digest}
                state = {"format": 1, "step": self.state.global_step}
                _write_state(folder, {**state, "supervised": {**self.settings.fingerprint(), **run}})

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


def check_resume(folder: Path, settings: SupervisedConfig, run: dict[str, str] | None = None) -> None:
    """Check that a checkpoint is complete and of this run.

    Args:
        folder: The checkpoint.
        settings: Of the run that would go on.
        run: Digests of its data and of what it started from; None before they are known.

    Raises:
        CheckpointError: It is not.
    """
    path = checkpoints.state_file(folder)
    try:
        known = dict(json.loads(path.read_text(encoding="utf-8"))["supervised"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged, or not of supervised fine-tuning ({error!r}); resume from another checkpoint"
        ) from error
    for name, value in settings.fingerprint().items():
        if known.get(name) != value:
            raise CheckpointError(
                f"{folder} was written with {name}={known.get(name)!r}, this run has {name}={value!r}; resume with the "
                "same setting, or start a new run in another output_dir"
            )
    words = {"data": "on other demonstrations", "start": "another model, or with other adapter settings"}
    for name, digest in (run or {}).items():
        if known.get(name) != digest:
            raise CheckpointError(
                f"{folder} was written while training {words[name]}; resume with the same model, adapter and dataset, "
                "or start a new run in another output_dir"
            )


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


def _write_state(folder: Path, state: dict[str, Any]) -> None:
    unfinished = folder / f"{checkpoints.STATE_FILE}.part"
    unfinished.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / checkpoints.STATE_FILE)  # at once: half a mark would be a mark
