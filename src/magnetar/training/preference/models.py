"""Getting a classifier ready to be trained: head, adapter, precision, dropout."""

from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from magnetar.errors import ModelError
from magnetar.modeling.loading import ensure_pad_token, load_tokenizer, locate_model
from magnetar.training.preference.config import PreferenceConfig

__all__ = ["disable_dropout", "head_names", "load_for_training", "prepare_classifier"]


def load_for_training(
    model: str,
    num_labels: int,
    *,
    dtype: str = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model with a classification head, which is new unless the checkpoint has one of the same size.

    Args:
        model: "demo", a folder or a Hub id: a causal language model, an encoder or a classifier.
        num_labels: Outputs of the head.
        dtype: Floating-point type of the weights.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether to run modelling code that comes with the checkpoint.
        attn_implementation: Attention kernel as transformers names it.

    Returns:
        The model, and its tokenizer, which has a pad token.

    Raises:
        ModelError: There is no such model, it has no classification form, its head is of another size, or weights
            below the head are missing.
        MissingDependencyError: The embedded model was asked for and its packages are not installed.
    """
    source = locate_model(model, revision)
    if source.base is not None:
        raise ModelError(
            f"{model!r} is an adapter, and another one would be trained on its base, {source.base.name!r}; merge it "
            "first (merge_and_unload), or give the base model"
        )
    tokenizer = load_tokenizer(model, revision=revision, trust_remote_code=trust_remote_code)
    options = {"attn_implementation": attn_implementation} if attn_implementation else {}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a new head is what we want; what else may be missing is looked at below
    try:
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            source.place,
            num_labels=num_labels,
            dtype=dtype,
            revision=revision or "main",
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except RuntimeError as error:
        if "size mismatch" not in str(error) and "mismatched" not in str(error):
            raise
        raise ModelError(
            f"{model!r} is a classifier with another number of outputs than the {num_labels} of this kind; start from "
            "its base model, or train the kind that it is"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{model!r} cannot be loaded as a classifier: {error}; give a causal language model or an encoder"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    classifier, info = loaded
    below = [name for name in sorted(info["missing_keys"]) if _below_head(name, classifier)]
    if below:
        raise ModelError(
            f"the checkpoint {model!r} lacks {len(below)} weights of {type(classifier).__name__}, for instance "
            f"{below[0]}, which would be random; expected a complete language model or encoder"
        )
    return classifier, tokenizer


def prepare_classifier(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    peft_config: PeftConfig | None,
    config: PreferenceConfig,
) -> PreTrainedModel | PeftModel:
    """Attach the adapter, keep the trained head in float32 and switch dropout off.

    Args:
        model: With a classification head.
        tokenizer: The model's.
        peft_config: The adapter to train; its head is trained and saved with it. None trains all weights.
        config: Settings of the run.

    Returns:
        The model to train.

    Raises:
        ModelError: The head does not have the outputs of the kind, or an adapter cannot be attached.
    """
    ensure_pad_token(tokenizer)
    if model.config.num_labels != config.num_labels:
        raise ModelError(
            f"the model has {model.config.num_labels} outputs, kind {config.kind!r} needs {config.num_labels}; load it "
            f"with num_labels={config.num_labels}"
        )
    text_config = model.config.get_text_config()
    if text_config.pad_token_id is None:
        # Decoders read the score at the last token that is not padding, so the model must know the id.
        text_config.pad_token_id = tokenizer.pad_token_id
    # One name for all sizes: a problem type would make transformers compute a loss of its own from `labels`.
    model.config.problem_type = None
    if peft_config is not None:
        if isinstance(model, PeftModel):
            raise ModelError("the model already has an adapter; train it as it is (peft_config=None) or merge it first")
        heads = head_names(model)
        peft_config.task_type = TaskType.SEQ_CLS  # else the head would neither be trained nor saved
        cast(Any, peft_config).modules_to_save = sorted(
            {*(getattr(peft_config, "modules_to_save", None) or ()), *heads}
        )
        model = cast(PeftModel, get_peft_model(model, peft_config))
        for name, module in model.named_modules():
            if name.rsplit(".", 1)[-1] == "default" and ".modules_to_save." in f".{name}.":
                _train_in_float32(module)
    if config.disable_dropout:
        disable_dropout(model)
    return model


def head_names(model: PreTrainedModel) -> list[str]:
    """Names of the modules above the base model, and of a pooler inside it, that have weights.

    A pooler is part of the head in effect: language-model checkpoints of encoders have none, so it starts at random.
    """
    names = [
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and next(module.parameters(), None) is not None
    ]
    base = getattr(model, model.base_model_prefix, None)
    if base is not None and getattr(base, "pooler", None) is not None:
        names.append("pooler")
    return names


def _below_head(name: str, model: PreTrainedModel) -> bool:
    return name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in f".{name}."


def _train_in_float32(module: nn.Module) -> None:
    """Steps of a new head would be rounded away in bfloat16; its input is cast to match."""
    weights = list(module.parameters())
    if not weights or all(weight.dtype == torch.float32 for weight in weights):
        return
    module.float()
    module.register_forward_pre_hook(_to_own_precision)


def _to_own_precision(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(
        value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value for value in inputs
    )


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of a model to zero."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Attention drops by a number of its own, not by a module: `attention_dropout` in most models.
        for name in [n for n, v in vars(module).items() if "dropout" in n and isinstance(v, float)]:
            setattr(module, name, 0.0)
