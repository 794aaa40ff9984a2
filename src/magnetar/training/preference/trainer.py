"""`PreferenceTrainer`: a classifier learns from pairs who beats whom."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from magnetar.training.metrics import MeanMetrics
from magnetar.training.preference import losses
from magnetar.training.preference.config import PreferenceConfig
from magnetar.training.preference.encoding import PairCollator, encode_pairs
from magnetar.training.preference.preparation import prepare_run
from magnetar.training.preference.reading import read_pairs
from magnetar.training.preference.saving import SavesJudge

__all__ = ["PreferenceTrainer"]

Model = PreTrainedModel | PeftModel


class PreferenceTrainer(SavesJudge):
    """Trains a judge of kind reward, cost, pairwise or general on preference pairs, hard or soft.

    A `transformers.Trainer` whose batches are pairs: both responses of a pair (for a pairwise model: both orders) are
    read in one pass, and the loss is the mean over the pairs of a step, however many micro-batches and processes it is
    spread over.

    Args:
        model: Name of a model, or a model with a classification head of ``args.num_labels`` outputs.
        args: Settings.
        train_dataset: As `magnetar.data.load_preferences` returns it; with signs of safety for a cost model.
        eval_dataset: Pairs to measure on during training; None for none.
        processing_class: The model's tokenizer; may be left out when the model is named.
        peft_config: Adapter to train instead of all weights; its head is trained and saved too.
        callbacks: Further callbacks.
        optimizers: Optimiser and schedule instead of those of ``args``.

    Raises:
        ConfigError: Settings that cannot work together.
        DataError: Pairs that are missing, too long or without signs.
        ModelError: A model or tokenizer that cannot be used as asked.
    """

    _tag_names = ["magnetar", "preference-model"]  # noqa: RUF012 - the name that transformers reads
    loss_is_scaled_for_ga = True  # divided by the pairs of the whole step, below

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
        prepared = prepare_run(model, args, train_dataset, eval_dataset, processing_class, peft_config)
        super().__init__(
            model=cast(Any, prepared.model),
            args=args,
            data_collator=cast(
                Any, PairCollator(cast(int, prepared.tokenizer.pad_token_id), prepared.share_beginnings)
            ),
            train_dataset=cast(Any, prepared.train.dataset),
            eval_dataset=cast(Any, None if prepared.held_out is None else prepared.held_out.dataset),
            processing_class=prepared.tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.model_accepts_loss_kwargs = True  # so that the pairs of a step are counted over its micro-batches
        self.can_return_loss = True
        self.label_names = []
        self._metrics = {"train": MeanMetrics(), "eval": MeanMetrics()}
        self.set_up_run(args)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss and accuracy on pairs; see `transformers.Trainer.evaluate`.

        Args:
            eval_dataset: As `magnetar.data.load_preferences` returns it, or encoded; None for those given at the
                start.
            *args: Passed on.
            **kwargs: Passed on.

        Returns:
            ``eval_loss``, ``eval_accuracy`` and, for a cost model, ``eval_sign_accuracy``.
        """
        if isinstance(eval_dataset, Dataset) and "first_ids" not in eval_dataset.column_names:
            eval_dataset = encode_pairs(eval_dataset, cast(Any, self.processing_class), self.settings).dataset
        return super().evaluate(cast(Any, eval_dataset), *args, **kwargs)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean loss over the pairs of the step to which this micro-batch belongs."""
        logits = read_pairs(model, inputs)
        loss, hits = pair_losses(logits, inputs, self.settings)
        metrics = self._metrics["train" if model.training else "eval"]
        if not model.training:
            # Processes repeat pairs to fill the last batch. These are left out here, and transformers' mean over
            # batches, which counts them, is replaced.
            hits = {name: cast(Tensor, self.accelerator.gather_for_metrics(hit)) for name, hit in hits.items()}
            hits["loss"] = cast(Tensor, self.accelerator.gather_for_metrics(loss.detach()))
        for name, hit in hits.items():
            kept = hit[~hit.isnan()]
            metrics.add(name, float(kept.sum()), len(kept))
        if num_items_in_batch is None or not model.training:
            total = loss.mean()  # transformers weighs the means of an evaluation's batches itself
        else:
            # Gradients are averaged over processes; the pairs are counted over all of them unless that is off.
            processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            total = loss.sum() / num_items_in_batch * processes
        return (total, {"logits": logits}) if return_outputs else total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the accuracies since the last log."""
        evaluated = any(name.startswith("eval_") for name in logs)
        metrics = self._metrics["eval" if evaluated else "train"].reduce(self.accelerator)
        prefix = "eval_" if evaluated else ""
        logs.update({prefix + name: value for name, value in metrics.items()})  # in place: `evaluate` returns them
        super().log(logs, start_time)


def pair_losses(
    logits: Tensor, inputs: Mapping[str, Tensor], config: PreferenceConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each pair of a batch, and whether the model agrees with its label.

    Args:
        logits: Shape (2N, L): of the first responses (or orders), then of the second.
        inputs: With ``labels`` (N,), and ``first_safe`` and ``second_safe`` (N,) for a cost model.
        config: Kind and temperature.

    Returns:
        Losses, shape (N,); and by name 1 for a hit, 0 for a miss, NaN where the label is even; a half
        for "accuracy" where the model sees no difference.
    """
    first, second = logits.chunk(2)
    win_prob = inputs["labels"]
    temperature = config.score_temperature
    hits: dict[str, Tensor] = {}
    if config.kind == "general":
        loss = losses.general_preference_loss(first, second, win_prob, temperature, config.normalize)
        margin = losses.embedding_score(first, second, config.normalize)
    else:
        one, other = first[:, 0], second[:, 0]
        margin = one - other
        if config.kind == "reward":
            loss = losses.bradley_terry_loss(one, other, win_prob, temperature)
        elif config.kind == "pairwise":
            loss = losses.pairwise_loss(one, other, win_prob)
        else:
            safe = inputs["first_safe"], inputs["second_safe"]
            loss = losses.cost_loss(one, other, win_prob, *safe, temperature)
            margin = -margin
            right = [(cost < 0) == sign for cost, sign in zip((one, other), safe, strict=True)]
            hits["sign_accuracy"] = torch.cat(right).float()
    hit = ((margin > 0) == (win_prob > 0.5)).float().masked_fill(margin == 0, 0.5)
    return loss, {"accuracy": hit.masked_fill(win_prob == 0.5, float("nan")), **hits}
