"""What a preference run saves, and the judge that comes out: shared by our trainer and TRL's."""

from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

import magnetar
from magnetar.errors import ConfigError
from magnetar.judges.models.card import JudgeCard, write_card
from magnetar.modeling.sharding import without_weights
from magnetar.training.dataset_runs import DatasetRun, RunKind
from magnetar.training.preference.config import PreferenceConfig
from magnetar.training.sharding import will_be_sharded

__all__ = ["PREFERENCE_RUN", "SavesJudge"]

PREFERENCE_RUN = RunKind("preference", "a preference model", "pairs")


class SavesJudge(DatasetRun):
    """A run whose checkpoints, and result, are judges."""

    run_kind = PREFERENCE_RUN
    settings: PreferenceConfig

    def set_up_run(self, settings: PreferenceConfig) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Attach callbacks; called at the end of a trainer's construction."""
        super().set_up_run(settings)
        self._skeleton = without_weights(cast(nn.Module, self.model)) if will_be_sharded(settings) else None

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

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; see `DatasetRun.train`.

        Raises:
            ConfigError: Also where several processes evaluated before they trained.
        """
        self._refuse_unshared_gradients()
        return super().train(*args, **kwargs)

    def save_beside(self, folder: Path) -> None:
        """The judge's card, so that a checkpoint can be loaded as a judge."""
        write_card(folder, self.card())

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
