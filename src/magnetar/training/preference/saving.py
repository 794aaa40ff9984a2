"""The part of a preference run that saves, resumes and stops: shared by our trainer and TRL's."""

import hashlib
import json
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback, Trainer

import magnetar
from magnetar.errors import CheckpointError, ConfigError
from magnetar.judges.models.card import JudgeCard, write_card
from magnetar.modeling.sharding import without_weights
from magnetar.training import checkpoints
from magnetar.training.callbacks import StopSignals, TrainingInterrupted
from magnetar.training.preference.callbacks import PreferenceConsole, PreferenceFiles
from magnetar.training.preference.config import PreferenceConfig
from magnetar.training.resumable import refuse_other_run
from magnetar.training.sharding import agreed, will_be_sharded
from magnetar.training.starting_point import digest_of_start

__all__ = ["SavesRun", "check_resume", "digest_of"]


class SavesRun(Trainer):
    """Checkpoints that are complete or not there, resumption, stop signals, and the judge's folder at the end."""

    settings: PreferenceConfig
    labels: dict[str, str]
    signals: StopSignals
    data_digest: str
    start_digest: str

    def set_up_run(self, settings: PreferenceConfig) -> None:
        """Attach callbacks; called at the end of a trainer's construction."""
        self.settings = settings
        # What a reader should see in place of a path or an object: "model", "dataset".
        self.labels = {}
        self.data_digest = digest_of(cast(Dataset, self.train_dataset))
        self.start_digest = agreed(digest_of_start(cast(nn.Module, self.model)), settings.world_size)
        self._skeleton = without_weights(cast(nn.Module, self.model)) if will_be_sharded(settings) else None
        # Ours print one line a log and keep the bar; transformers' print dictionaries.
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.signals = StopSignals(self.accelerator)
        self.add_callback(self.signals)
        self.add_callback(PreferenceFiles(self))
        if not settings.disable_tqdm and settings.process_index == 0:
            self.add_callback(PreferenceConsole())

    def run_settings(self) -> dict[str, Any]:
        """What a reader needs to know of the run, as plain values; written to `magnetar_config.json`."""
        args = self.settings
        peft = self.model.active_peft_config if isinstance(self.model, PeftModel) else None
        return {
            "magnetar": magnetar.__version__,
            "preference_model": args.kind,
            **self.labels,
            "pairs": len(cast(Dataset, self.train_dataset)),
            "lora_rank": getattr(peft, "r", None),
            "settings": {
                **args.fingerprint(),
                "temperature": args.score_temperature,
                "embedding_dim": args.num_labels if args.kind == "general" else None,
                "lr_scheduler_type": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
                "weight_decay": args.weight_decay,
                "bf16": args.bf16,
                "dtype": str(next(cast(nn.Module, self.model).parameters()).dtype).removeprefix("torch."),
            },
        }

    def card(self) -> JudgeCard:
        """The card of the judge that is being trained."""
        args = self.settings
        return JudgeCard(
            kind=args.kind,
            template=args.pair_template,
            temperature=args.score_temperature,
            max_length=args.max_length,
            normalize=args.normalize,
            training=self.run_settings() | {"steps": self.state.global_step},
            magnetar=magnetar.__version__,
        )

    def save_judge(self, folder: str | Path) -> Path:
        """Write the model, its tokenizer and its card, so that ``build_judge("KIND:FOLDER")`` loads them.

        A LoRA adapter is merged into the model unless ``merge_adapter`` is false; `model` is the merged one then, and
        cannot be trained further.

        Args:
            folder: Where to; made if it is not there.

        Returns:
            The folder.
        """
        folder = Path(folder)
        model: Any = self._whole_model()
        if (
            isinstance(model, PeftModel)
            and self.settings.merge_adapter
            and (self._skeleton is None or self.args.should_save)
        ):
            dtype = cast(PreTrainedModel, model.get_base_model()).dtype
            model = cast(Any, model.merge_and_unload(safe_merge=True)).to(dtype)  # the head, in float32, as the rest
            if self._skeleton is None:
                self.model = self.model_wrapped = model
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            model.save_pretrained(str(folder))
            if isinstance(model, PeftModel):
                cast(PreTrainedModel, model.get_base_model()).config.save_pretrained(
                    folder
                )  # says how many outputs the saved head has
            cast(Any, self.processing_class).save_pretrained(folder)
            write_card(folder, self.card())
        self.accelerator.wait_for_everyone()
        return folder

    def _whole_model(self) -> nn.Module:
        """The model with all its weights; where they are sharded, a copy, of use on the process that saves."""
        if self._skeleton is None:
            return self.accelerator.unwrap_model(cast(nn.Module, self.model))
        weights = self.accelerator.get_state_dict(self.model_wrapped)  # every process takes part, the first gets them
        whole = deepcopy(self._skeleton)
        if self.args.should_save:
            whole.load_state_dict(cast(Any, weights), assign=True)
            if hasattr(whole, "tie_weights"):
                cast(Any, whole).tie_weights()
        return whole

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Train; see `transformers.Trainer.train`. A finished run that is resumed is loaded, and trains nothing.

        Args:
            resume_from_checkpoint: A checkpoint folder, or True for the newest complete one of ``output_dir``.
            trial: Passed on.
            ignore_keys_for_eval: Passed on.

        Returns:
            The result of `transformers.Trainer.train`.

        Raises:
            CheckpointError: The checkpoint is incomplete, damaged or of another run, or saving failed.
            ConfigError: The output folder holds another run, or several processes evaluated before they trained.
            TrainingInterrupted: After SIGINT or SIGTERM, once a checkpoint is written.
        """
        self._refuse_unshared_gradients()
        run_dir = Path(cast(str, self.args.output_dir))
        if resume_from_checkpoint:
            found = resume_from_checkpoint
            folder = checkpoints.latest_checkpoint(run_dir) if found is True else Path(str(found))
            check_resume(folder, self.settings, self.data_digest, self.start_digest)
            resume_from_checkpoint = str(folder)
        elif not self.settings.overwrite_output_dir:
            refuse_other_run(run_dir)
        elif self.args.should_save:
            checkpoints.remove_all(run_dir)
        with self.signals.installed():
            result = super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)
        if self.signals.received is not None and self.state.global_step < self.state.max_steps:
            raise TrainingInterrupted(self.signals.received, run_dir / f"checkpoint-{self.state.global_step}")
        return result

    def _refuse_unshared_gradients(self) -> None:
        """Refuse a model that an evaluation made ready: accelerate would not wrap it again to exchange gradients."""
        processes = self.accelerator.num_processes
        wrapped = cast(nn.Module, self.model_wrapped)
        others_exchange = (
            self.is_fsdp_enabled or self.is_deepspeed_enabled or self.is_distributed_loading_by_transformers
        )
        if processes == 1 or others_exchange or not getattr(wrapped, "_is_accelerate_prepared", False):
            return
        if not any(isinstance(module, DistributedDataParallel) for module in wrapped.modules()):
            raise ConfigError(
                f"the model was evaluated before train() on {processes} processes, which would then not exchange "
                "gradients; measure the start with eval_on_start=True, or evaluate after training"
            )

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
                write_card(folder, self.card())
                run = {"data": self.data_digest, "start": self.start_digest}
                _write_state(folder, self.settings, run, self.state.global_step)


def digest_of(dataset: Dataset) -> str:
    """Digest of the encoded pairs in their order: another dataset, tokenizer or limit has another one."""
    digest = hashlib.blake2b(digest_size=16)
    for column in sorted(dataset.column_names):
        digest.update(column.encode())
        for batch in dataset.select_columns([column]).with_format("arrow").iter(1000):
            digest.update(repr(cast(Any, batch)[column].to_pylist()).encode())
    return digest.hexdigest()


def check_resume(
    folder: Path, settings: PreferenceConfig, data_digest: str | None = None, start_digest: str | None = None
) -> None:
    """Check that a checkpoint is complete and of this run.

    Args:
        folder: The checkpoint.
        settings: Of the run that would go on.
        data_digest: Of its pairs; None before they are encoded.
        start_digest: Of what it started from; None before that is loaded.

    Raises:
        CheckpointError: It is not.
    """
    path = checkpoints.state_file(folder)
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["preference"]
        known = dict(saved)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged, or not of a preference model ({error!r}); resume from another checkpoint"
        ) from error
    for name, value in settings.fingerprint().items():
        if known.get(name) != value:
            raise CheckpointError(
                f"{folder} was written with {name}={known.get(name)!r}, this run has {name}={value!r}; resume with the "
                "same setting, or start a new run in another output_dir"
            )
    if data_digest is not None and known.get("data") != data_digest:
        raise CheckpointError(
            f"{folder} was written while training on other pairs; resume with the same dataset, split and tokenizer, "
            "or start a new run in another output_dir"
        )
    if start_digest is not None and known.get("start") != start_digest:
        raise CheckpointError(
            f"{folder} was written while training an adapter on another model, or another adapter; resume with the "
            "same model and adapter settings, or start a new run in another output_dir"
        )


def _write_state(folder: Path, settings: PreferenceConfig, run: dict[str, str], step: int) -> None:
    state = {"format": 1, "step": step, "preference": {**settings.fingerprint(), **run}}
    unfinished = folder / f"{checkpoints.STATE_FILE}.part"
    unfinished.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / checkpoints.STATE_FILE)  # at once: half a mark would be a mark
